"""What the footage gate looks at (`Footage`), by which thresholds (`GateParams`), and what it says (`Finding`)."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gensync_core.media.ffmpeg_command import MAX_PIXELS
from gensync_core.media.probe import Probe

Severity = Literal["reject", "fixed", "warn"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateParams:
    """What footage must be like.

    Attributes:
        min_seconds: of pictures and sound together.
        max_seconds: of the whole file.
        min_side_px: of the shorter side of the picture.
        max_pixels: of one frame.
        min_fps: frames shown per second, below which motion of the mouth is lost.
        good_fps: frames shown per second, below which it is worse than it could be.
        min_face_px: height of the face's box (brows to chin) in the footage.
        max_several_faces: share of the sampled frames that may show more than one person.
        max_without_face: share of the sampled frames that may show nobody.
        min_face_ratio: a face under this share of the largest one's height is background (a poster, a passer-by).
        max_missing: share of the promised frames or seconds that may be missing before a file counts as truncated.
        samples_per_second: frames in which faces are counted.
        max_samples: frames in which faces are counted in long footage.
    """

    min_seconds: float | int = 2.5
    max_seconds: float | int = 3600.0
    min_side_px: int = 96
    max_pixels: int = MAX_PIXELS
    min_fps: float | int = 10.0
    good_fps: float | int = 20.0
    min_face_px: int = 48
    max_several_faces: float | int = 0.5
    max_without_face: float | int = 0.5
    min_face_ratio: float | int = 0.4
    max_missing: float | int = 0.02
    samples_per_second: float | int = 2.0
    max_samples: int = 600

    def __post_init__(self) -> None:
        for name in ("max_several_faces", "max_without_face", "min_face_ratio", "max_missing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.{name} is {getattr(self, name)}, expected 0 to 1")
        if not 1 <= self.min_seconds < self.max_seconds:
            raise ValueError(f"gate.min_seconds is {self.min_seconds}, expected at least 1 and less than gate.max_seconds")
        if not 0 < self.min_fps <= self.good_fps:
            raise ValueError(f"gate.min_fps is {self.min_fps}, expected more than 0 and at most gate.good_fps")
        if not 1 <= self.max_pixels <= MAX_PIXELS:
            raise ValueError(f"gate.max_pixels is {self.max_pixels}, expected 1 to {MAX_PIXELS}")
        if self.min_side_px < 16 or self.min_face_px < 8:
            raise ValueError("gate.min_side_px must be at least 16 and gate.min_face_px at least 8")
        if not 0.1 <= self.samples_per_second <= 25 or self.max_samples < 1:
            raise ValueError("gate.samples_per_second must be 0.1 to 25 and gate.max_samples at least 1")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: short name, for programs.
        severity: `reject`, `fixed` or `warn`.
        message: what it is and what a person can do about it.
        seconds: where in the footage, from its beginning; empty: everywhere, or nowhere in particular.
    """

    code: str
    severity: Severity
    message: str
    seconds: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As written into `clip.json`."""
        return {**asdict(self), "seconds": list(self.seconds)}


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A face in px of the footage as shown: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class FaceSample:
    """The people in one frame, `time_s` after the first; passers-by and posters aside, largest first."""

    time_s: float
    faces: tuple[FaceBox, ...]


@dataclass(frozen=True, slots=True)
class Footage:
    """What the checks look at. `samples` is empty until faces have been counted."""

    path: Path
    probe: Probe
    samples: tuple[FaceSample, ...] = ()


Check = Callable[[Footage, GateParams], Iterable[Finding]]
"""One look at the footage; it yields what it finds."""
