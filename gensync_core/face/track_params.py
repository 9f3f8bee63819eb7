"""How far the tracker trusts what it sees, as `params.yaml` says."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackParams:
    """How the head is tracked.

    Attributes:
        focal_prior: expected focal length over the clip's width; 2.5 for a face that fills half of it.
        focal_sigma: how far the logarithm of the focal length may stray from that.
        landmark_sigma: error expected of a landmark, over the inter-ocular distance.
        rotation_acceleration_deg: expected second difference of the rotation, degrees a frame squared.
        translation_acceleration_dm: the same of the translation; along the view axis it is this times focal length over width.
        shape_sigma_dm: how far a speaker's face may differ from the canonical one.
        max_lost_share: a clip with a larger share of frames without a face is rejected.
    """

    focal_prior: float = 2.5
    focal_sigma: float = 0.3
    landmark_sigma: float = 0.02
    rotation_acceleration_deg: float = 0.5
    translation_acceleration_dm: float = 0.015
    shape_sigma_dm: float = 0.03
    max_lost_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0.5 <= self.focal_prior <= 20:
            raise ValueError(f"focal_prior must lie in [0.5, 20], got {self.focal_prior}")
        if not 0 <= self.max_lost_share < 1:
            raise ValueError(f"max_lost_share must lie in [0, 1), got {self.max_lost_share}")
        for name in (
            *("focal_sigma", "landmark_sigma", "rotation_acceleration_deg"),
            *("translation_acceleration_dm", "shape_sigma_dm"),
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
