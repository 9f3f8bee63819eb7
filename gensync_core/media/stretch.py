"""A stretch of footage, pictures and sound on one clock, without cutting a clip: frame k and sample 640 k belong together."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from gensync_core.media import ffmpeg_command
from gensync_core.media.clip_cutting import FPS, SAMPLES_PER_FRAME, Span, to_display
from gensync_core.media.ffmpeg_command import LEAST_WAIT_S, Patience
from gensync_core.media.probe import Probe
from gensync_core.media.sound import iter_sound
from gensync_core.media.video import iter_raw

_SEEK_MARGIN_S = 1.0
_MOST_FROM_START_S = 600.0
_FULL_SCALE = 32768


class Stretch(NamedTuple):
    """Where it begins, in seconds after the footage's first picture, and how many frames at 25 fps it has."""

    start_s: float
    num_frames: int

    @property
    def duration_s(self) -> float:
        """Its length."""
        return self.num_frames / FPS


class View(NamedTuple):
    """What of each picture is wanted: a box in px of the footage as shown, and the size it is scaled to."""

    x: int
    y: int
    width: int
    height: int
    scaled_width: int
    scaled_height: int


def stretch_frames(path: Path, found: Probe, stretch: Stretch, view: View) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frame k is what the footage shows at the stretch's start + k / 25 s; fewer come where the footage ends.

    Raises:
        FootageRejected: decoding fails.
    """
    start_s = found.video_start_s + stretch.start_s
    seek_s = stretch.start_s - _SEEK_MARGIN_S
    # copyts: times in the graph are those that the probe saw, wherever decoding begins.
    stream = ffmpeg_command.video_input(path, copyts=None, **({"ss": f"{seek_s:.6f}"} if seek_s > 0 else {}))
    stream = stream.filter("setpts", expr=f"PTS-{start_s:.6f}/TB").filter("fps", fps=FPS, start_time=0)
    stream = stream.filter("trim", end_frame=stretch.num_frames)
    stream = to_display(stream, found.width, found.height, found.square_pixels)
    stream = stream.filter("crop", view.width, view.height, view.x, view.y, exact=1)
    stream = stream.filter("scale", view.scaled_width, view.scaled_height, flags=ffmpeg_command.LOOKING)
    # Where pictures to begin at are rare, all from the beginning are decoded.
    from_start_s = min(ffmpeg_command.work_s(found.width, found.height, stretch.start_s), _MOST_FROM_START_S)
    patience = Patience(ffmpeg_command.work_s(found.width, found.height, 1 / FPS), LEAST_WAIT_S + from_start_s)
    yield from iter_raw(path, stream, (view.scaled_height, view.scaled_width, 3), "rgb24", patience)


def stretch_sound(path: Path, found: Probe, stretch: Stretch) -> Float[np.ndarray, "N"]:
    """Its sound, 16 kHz mono in -1..1, 640 samples a frame; silence where the footage has none.

    Raises:
        FootageRejected: there is no sound, or decoding fails.
    """
    start_s = found.video_start_s + stretch.start_s
    blocks = list(iter_sound(path, Span(start_s, start_s + stretch.duration_s)))
    samples = np.concatenate([np.zeros((0, 1), dtype=np.int16), *blocks])[:, 0]
    missing = stretch.num_frames * SAMPLES_PER_FRAME - len(samples)
    return np.pad(samples, (0, missing)).astype(np.float32) / _FULL_SCALE
