"""How an avatar is measured: the section `evaluate` of `params.yaml`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateParams:
    """How an avatar is measured; which frames are held out is `SplitParams`.

    Attributes:
        max_frames: measure at most this many of the held-out frames, from their start; null for all.
        controls: also render with shuffled sound and with silence (three times the work).
        control_shift_s: by how many seconds the shuffled control is shifted.
        max_offset_frames: widest offset that is looked for, to either side.
        sheet_frames: columns of the contact sheet.
        lpips: measure perceptual distances, too; fetches the weights (64 MB) where they are not at hand.
    """

    max_frames: int | None
    controls: bool
    control_shift_s: float
    max_offset_frames: int
    sheet_frames: int
    lpips: bool

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 3:
            raise ValueError(f"max_frames must be at least 3 or null, got {self.max_frames}")
        if not 0 < self.control_shift_s <= 60:
            raise ValueError(f"control_shift_s must lie in (0, 60], got {self.control_shift_s}")
        if not 0 <= self.max_offset_frames <= 100:
            raise ValueError(f"max_offset_frames must lie in 0..100, got {self.max_offset_frames}")
        if not 1 <= self.sheet_frames <= 24:
            raise ValueError(f"sheet_frames must lie in 1..24, got {self.sheet_frames}")
