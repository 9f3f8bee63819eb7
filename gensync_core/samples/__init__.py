"""Two sample speakers animated from public-domain portraits, with the truth they were made from."""

from gensync_core.samples.sample_speaker import SampleFiles, make_sample
from gensync_core.samples.speech import make_speech

__all__ = ["SampleFiles", "make_sample", "make_speech"]
