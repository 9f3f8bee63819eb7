"""Which frames are trained on, as `params.yaml` says."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitParams:
    """How a clip is divided in time.

    Attributes:
        test_share: last share of every clip that training never sees (1/11 in the papers' protocol).
    """

    test_share: float

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 0.5:
            raise ValueError(f"test_share must lie in (0, 0.5), got {self.test_share}")

    def num_train(self, num_frames: int) -> int:
        """Frames 0 .. num_train - 1 train, the rest tests."""
        return max(1, num_frames - max(1, round(num_frames * self.test_share)))
