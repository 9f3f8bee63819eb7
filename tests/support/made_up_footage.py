"""Footage in which nothing is wrong with what is seen and heard: for tests of what is around the gate's costly looks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gensync_core.footage.gate import Senses
from gensync_core.footage.mouth_scan import MouthFacts
from gensync_core.footage.picture_scan import PictureFacts
from gensync_core.footage.sound_offset import SoundOffset
from gensync_core.footage.sound_scan import SoundFacts

_NONE = np.zeros(0)
PICTURE = PictureFacts(
    seconds=4.0,
    color_transfer="bt709",
    can_tone_map=True,
    decoding_failed=False,
    damaged=(),
    cuts_s=(),
    black=(),
    still=(),
    looks=(),
)
SOUND = SoundFacts(
    start_s=0.0,
    seconds=4.0,
    speech=((0.0, 4.0),),
    loudest_dbfs=-20.0,
    speech_dbfs=-20.0,
    background_dbfs=-60.0,
    overdriven=(),
    steadiness=(),
)
MOUTH = MouthFacts(
    times_s=_NONE,
    yaw_deg=_NONE,
    pitch_deg=_NONE,
    beyond=_NONE,
    lip_redness=_NONE,
    skin_chroma=_NONE,
    aperture=_NONE,
    spoken=np.zeros(0, dtype=bool),
    sampled_s=_NONE,
    sampled_beyond=_NONE,
    offset=None,
)


def senses(faces: Callable[[np.ndarray], Sequence[Any]], sound_late_s: float = 0.0) -> Senses:
    """Senses that find nothing but these faces, and a sound that is certainly so late."""
    mouth = replace(MOUTH, offset=SoundOffset(sound_late_s, 9.0, 0.5)) if sound_late_s else MOUTH
    return Senses(faces, lambda *_: PICTURE, lambda *_: SOUND, lambda *_: mouth)
