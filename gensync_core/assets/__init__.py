"""The one place that finds pretrained parts: by name, hub id or local folder; every known file is checked by its sha256."""

from gensync_core.assets.known import FACE_LANDMARKER, KNOWN_ASSETS, LPIPS_ALEX, WHISPER_TINY_EN, KnownAsset
from gensync_core.assets.resolver import find, resolve

__all__ = ["FACE_LANDMARKER", "KNOWN_ASSETS", "LPIPS_ALEX", "WHISPER_TINY_EN", "KnownAsset", "find", "resolve"]
