"""By which thresholds the footage gate judges."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gensync_core.footage.findings import Finding, Footage
from gensync_core.footage.mouth_checks import MouthParams
from gensync_core.footage.picture_checks import PictureParams
from gensync_core.footage.sound_checks import SoundParams
from gensync_core.media.ffmpeg_command import MAX_PIXELS


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
        picture: what the pictures must be like.
        sound: what the sound must be like.
        mouth: what the mouth must be like.
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
    picture: PictureParams = field(default_factory=PictureParams)
    sound: SoundParams = field(default_factory=SoundParams)
    mouth: MouthParams = field(default_factory=MouthParams)

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


Check = Callable[[Footage, GateParams], Iterable[Finding]]
"""One look at the footage; it yields what it finds."""
