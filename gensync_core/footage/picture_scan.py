"""Measures the pictures of footage in one pass: what was damaged, what changes and what does not, how sharp and how bright."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from skimage.measure import blur_effect

from gensync_core.footage.time_spans import TimeSpan, joined
from gensync_core.media.clip_cutting import FPS, BoxLike, SquareCrop
from gensync_core.media.picture_tiles import DecodingLog, iter_tiles
from gensync_core.media.probe import Probe
from gensync_core.media.tone_mapping import can_tone_map

_LOOKS_PER_SECOND: Final = 2
_ROOM_AROUND_FACE: Final = 1.3
_FACE_UNKNOWN: Final = 0.5  # share of the shorter side that is looked at in the middle
_CELL_PX: Final = 8
_STILL_BELOW: Final = 1.0  # grey levels that the mean of the cell that changed most may change by
_SHORTEST_S: Final = 0.15
_BLACK_BELOW: Final = 25  # grey level; as ffmpeg's blackdetect has it
_BLACK_SHARE: Final = 0.98
_CLIPPED_FROM: Final = 250
_BRIGHT_PERCENTILE: Final = 95
_COMPLAINT_S: Final = 0.5
_NEAR_S: Final = 0.5


class PictureLook(NamedTuple):
    """The face's region at one moment.

    Attributes:
        time_s: after the first picture.
        blur: 0 (sharp) to 1, at 96 px a side or less. Source: Crete et al. 2007, as scikit-image has it.
        bright: grey level, 0 to 255, that 5% of the region reach: highlights on the skin, the white of the eyes.
        clipped: share of the region that is at the upper end of the scale.
    """

    time_s: float
    blur: float
    bright: float
    clipped: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFacts:
    """What was measured. Stretches and times are in seconds after the first picture, in order.

    Attributes:
        seconds: of all pictures.
        color_transfer: as in `Probe`.
        can_tone_map: whether the ffmpeg in use can bring HDR to the standard range.
        decoding_failed: whether the decoder gave up before the end.
        damaged: stretches that the decoder complained about, or lost pictures of.
        cuts_s: times at which another scene begins.
        black: stretches of at least 0.15 s in which nothing is seen.
        still: stretches of at least 0.15 s in which nothing moves, neither in the whole picture nor in the face; without
            those that are black or damaged.
        looks: the face's region, twice a second, where the picture is not black.
    """

    seconds: float
    color_transfer: str
    can_tone_map: bool
    decoding_failed: bool
    damaged: tuple[TimeSpan, ...]
    cuts_s: tuple[float, ...]
    black: tuple[TimeSpan, ...]
    still: tuple[TimeSpan, ...]
    looks: tuple[PictureLook, ...]


def scan_picture(path: Path, found: Probe, faces: Sequence[BoxLike] = ()) -> PictureFacts:
    """Decode all pictures once, at reduced size.

    Args:
        path: footage with video.
        found: what it holds.
        faces: the speaker's face in frames spread over the footage; without any, the middle of the picture is measured.

    Raises:
        FootageRejected: there is no such file.
    """
    own_fps = found.avg_fps or found.fps or float(FPS)  # one picture alone has no rate
    fps = min(float(FPS), own_fps)
    log = DecodingLog(1 / own_fps)
    cuts, motion = _Cuts(fps), _Motion()
    black, still = _Stretches(fps), _Stretches(fps)
    looks: list[PictureLook] = []
    every = max(round(fps / _LOOKS_PER_SECOND), 1)
    for index, tiles in enumerate(iter_tiles(path, found, _region(faces, found), fps, log)):
        cuts.add(index, tiles.whole)
        whole, region = _grey(tiles.whole), _grey(tiles.region)
        is_black = float(np.count_nonzero(whole < _BLACK_BELOW)) >= _BLACK_SHARE * whole.size
        black.add(index, is_black)
        still.add(index, motion.add(whole, region) < _STILL_BELOW and not is_black)
        if index % every == 0 and not is_black:
            looks.append(_look(index / fps, region))
    damaged = _damaged(log, found, 1 / own_fps)
    return PictureFacts(
        seconds=found.video_duration_s,
        color_transfer=found.color_transfer,
        can_tone_map=can_tone_map(),
        decoding_failed=log.failed,
        damaged=damaged,
        cuts_s=tuple(time_s for time_s in cuts.times_s if not _near(time_s, (*damaged, *black.found()))),
        black=black.found(),
        still=tuple(one for one in still.found() if not any(_overlap(one, other) for other in damaged)),
        looks=tuple(looks),
    )


def _region(faces: Sequence[BoxLike], found: Probe) -> SquareCrop:
    shorter = min(found.width, found.height)
    if faces:
        boxes = np.array([(face.x + face.w / 2, face.y + face.h / 2, face.h) for face in faces], dtype=np.float64)
        centre_x, centre_y, face_px = np.median(boxes, axis=0)
        size = min(max(round(_ROOM_AROUND_FACE * face_px), _CELL_PX), shorter)
    else:
        centre_x, centre_y, size = found.width / 2, found.height / 2, max(round(_FACE_UNKNOWN * shorter), 1)
    left = min(max(round(centre_x - size / 2), 0), found.width - size)
    top = min(max(round(centre_y - size / 2), 0), found.height - size)
    return SquareCrop(left, top, size)


def _grey(rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)


def _look(time_s: float, region: UInt8[np.ndarray, "H W"]) -> PictureLook:
    bright = float(np.percentile(region, _BRIGHT_PERCENTILE))
    flat = int(region.max()) == int(region.min())
    blur = 1.0 if flat else float(np.asarray(blur_effect(region)))
    return PictureLook(round(time_s, 2), blur, bright, float(np.mean(region >= _CLIPPED_FROM)))


class _Cuts:
    """PySceneDetect's detector of changes that stand out from the motion around them; it sees frames, never the file."""

    def __init__(self, fps: float) -> None:
        from scenedetect import AdaptiveDetector  # half a second

        self._fps = fps
        self._detector = AdaptiveDetector(min_scene_len=max(round(_NEAR_S * fps), 1))
        self.times_s: list[float] = []

    def add(self, index: int, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
        from scenedetect import FrameTimecode

        found = self._detector.process_frame(FrameTimecode(index, self._fps), np.ascontiguousarray(rgb[:, :, ::-1]))
        self.times_s += [round(cut.frame_num / self._fps, 2) for cut in found if cut.frame_num is not None]


class _Motion:
    """Change since the frame before, of the cell that changed most: a mouth that moves is not lost in a still room."""

    def __init__(self) -> None:
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, whole: UInt8[np.ndarray, "H W"], region: UInt8[np.ndarray, "side side"]) -> float:
        before, self._before = self._before, (whole, region)
        if before is None:
            return math.inf
        return max(_largest_change(before[0], whole), _largest_change(before[1], region))


def _largest_change(before: UInt8[np.ndarray, "H W"], now: UInt8[np.ndarray, "H W"]) -> float:
    change = cv2.absdiff(before, now).astype(np.float32)
    height, width = (max(side // _CELL_PX, 1) for side in change.shape)
    return float(cv2.resize(change, (width, height), interpolation=cv2.INTER_AREA).max())


class _Stretches:
    """Frames in a row of which something holds; two that are parted by a moment count as one."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._found: list[TimeSpan] = []

    def add(self, index: int, holds: bool) -> None:
        if holds:
            start_s, end_s = index / self._fps, (index + 1) / self._fps
            if self._found and start_s - self._found[-1].end_s < _SHORTEST_S:
                self._found[-1] = TimeSpan(self._found[-1].start_s, end_s)
            else:
                self._found.append(TimeSpan(start_s, end_s))

    def found(self) -> tuple[TimeSpan, ...]:
        return tuple(_rounded(self._found))


def _rounded(stretches: Iterable[TimeSpan]) -> Iterator[TimeSpan]:
    for one in stretches:
        if one.seconds >= _SHORTEST_S:
            yield TimeSpan(round(one.start_s, 2), round(one.end_s, 2))


def _damaged(log: DecodingLog, found: Probe, interval_s: float) -> tuple[TimeSpan, ...]:
    end_s = found.video_duration_s
    if not log.complaints_s and not log.failed:
        return ()
    places = [TimeSpan(time_s, time_s + _COMPLAINT_S) for time_s in log.complaints_s]
    if not found.variable_rate:
        places += [TimeSpan(*gap) for gap in log.gaps_s]
    places.append(TimeSpan(log.last_s + interval_s, end_s))
    within = [TimeSpan(place.start_s, min(place.end_s, end_s)) for place in places]
    return tuple(_rounded(joined(within, _NEAR_S)))


def _near(time_s: float, stretches: Iterable[TimeSpan]) -> bool:
    return any(one.start_s - _NEAR_S <= time_s <= one.end_s + _NEAR_S for one in stretches)


def _overlap(one: TimeSpan, other: TimeSpan) -> bool:
    return one.start_s < other.end_s and other.start_s < one.end_s
