"""One look at all pictures of a file: each small as a whole, with its most important part beside it, and what the decoder said.

What the decoder complains about is read from its messages, in order with a line for each picture that it gave. It is not asked
to stop at errors: with `-err_detect explode` alone ffmpeg 9.0 does not come to an end on some damaged files.
"""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Final, NamedTuple

import numpy as np
from jaxtyping import UInt8

from gensync_core.media import ffmpeg_command
from gensync_core.media.clip_cutting import SquareCrop, to_display
from gensync_core.media.ffmpeg_command import FfmpegFailed, Patience, work_s
from gensync_core.media.probe import Probe
from gensync_core.media.tone_mapping import can_tone_map, to_standard_range

TILE_PX: Final = 96

_LONGEST_TILE_PX: Final = 4 * TILE_PX
_MESSAGE: Final = re.compile(rb"\[[^\]]+ @ 0x")
_PICTURE: Final = re.compile(rb"frame:\d+ .*pts_time:(-?[\d.]+)")
_KEY: Final = "gensync"
_MOST_EVENTS: Final = 10_000


class Tiles(NamedTuple):
    """One frame: the whole picture, 96 px high, and the region that was asked for, up to 96 px a side; RGB."""

    whole: UInt8[np.ndarray, "height width 3"]
    region: UInt8[np.ndarray, "side side 3"]


class DecodingLog:
    """What happened while a file was decoded; complete when all its tiles have been seen.

    Attributes:
        num_pictures: that the decoder gave.
        last_s: time of the last of them, counted from the first.
        complaints_s: times of the pictures before which the decoder complained, in order.
        gaps_s: from and to, wherever at least two pictures in a row are missing at the given interval.
        failed: whether decoding stopped before the end.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._first_s: float | None = None
        self.num_pictures = 0
        self.last_s = 0.0
        self.complaints_s: list[float] = []
        self.gaps_s: list[tuple[float, float]] = []
        self.failed = False

    def read(self, messages: IO[bytes]) -> None:
        """Take in what ffmpeg wrote."""
        for line in messages:
            picture = _PICTURE.match(line)
            if picture:
                self._add_picture(float(picture[1]))
            elif _MESSAGE.match(line) and len(self.complaints_s) < _MOST_EVENTS:
                self.complaints_s.append(self.last_s)

    def _add_picture(self, time_s: float) -> None:
        if self._first_s is None:
            self._first_s = time_s
        time_s -= self._first_s
        if self.num_pictures and time_s - self.last_s > 2.5 * self._interval_s and len(self.gaps_s) < _MOST_EVENTS:
            self.gaps_s.append((self.last_s, time_s))
        self.num_pictures += 1
        self.last_s = time_s


def iter_tiles(path: Path, found: Probe, region: SquareCrop, fps: float | int, log: DecodingLog) -> Iterator[Tiles]:
    """The picture of every 1/`fps` s, in constant memory; HDR is mapped to the standard range.

    A file that cannot be decoded to its end gives the tiles up to there; `log` says so.

    Args:
        path: any container of a known kind.
        found: what it holds.
        region: in px of the picture as shown.
        fps: tiles a second, at most the file's own rate.
        log: hears what the decoder said.

    Raises:
        FootageRejected: there is no such file.
    """
    side = min(region.size, TILE_PX)
    width = min(max(round(TILE_PX * found.width / found.height), 2), _LONGEST_TILE_PX)
    stream = ffmpeg_command.video_input(path, max_error_rate=1)
    # Only pictures with metadata are printed, so each is given some; unbuffered, to stay in order with the complaints.
    stream = stream.filter("metadata", mode="add", key=_KEY, value="picture")
    stream = stream.filter("metadata", mode="print", key=_KEY, file="pipe:2", direct=1)
    stream = stream.filter("fps", fps=str(Fraction(fps).limit_denominator(1000)))
    both = to_display(stream, found.width, found.height, found.square_pixels).split()
    whole = both[0].filter("scale", width, TILE_PX, flags="area").filter("setsar", 1)
    part = both[1].filter("crop", region.size, region.size, region.x, region.y, exact=1)
    part = part.filter("scale", side, side, flags="area").filter("pad", TILE_PX, TILE_PX).filter("setsar", 1)
    stream = ffmpeg_command.beside(whole, part)
    if can_tone_map():
        stream = to_standard_range(stream, found.color_transfer)
    output = ffmpeg_command.to_pipe(stream, format="rawvideo", pix_fmt="rgb24")
    frame = np.empty((TILE_PX, width + TILE_PX, 3), dtype=np.uint8)
    patience = Patience(work_s(found.width, found.height, 1 / fps))
    num_left = math.ceil(found.video_duration_s * fps) + 1  # a damaged time stamp must not make hours of repeated frames
    try:
        for _ in ffmpeg_command.read_blocks(output, lambda: frame.reshape(-1).data, patience, log.read):
            yield Tiles(frame[:, :width], frame[:side, width : width + side])
            num_left -= 1
            if num_left <= 0:
                return
    except FfmpegFailed:
        log.failed = True
