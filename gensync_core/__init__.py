"""GenSync core: from footage of a talking person to an audio-driven Gaussian avatar.

Knows nothing of Prefect, DVC or any cloud; `python -m gensync_core STAGE` is how the pipeline calls it.
"""

__version__ = "0.1.0"
