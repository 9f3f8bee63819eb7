"""How speech becomes frames, as `params.yaml` says."""

from dataclasses import dataclass

MODES = ("full", "fast")


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthParams:
    """How synthesis runs.

    Attributes:
        mode: `fast` (bases of this speaker instead of the networks, where that pays and is as good) or `full`.
        batch_frames: frames whose audio codes are computed at once.
        crf: quality of the H.264 video, 0 (lossless) to 51.
    """

    mode: str
    batch_frames: int
    crf: int

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}, expected one of {', '.join(MODES)}")
        if self.batch_frames < 1:
            raise ValueError(f"batch_frames must be positive, got {self.batch_frames}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must lie in 0..51, got {self.crf}")
