"""When Gaussians are added and taken out, as `params.yaml` says."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DensifyParams:
    """When and where Gaussians are added and removed. Steps count from 0; scales are standard deviations in the cloud's unit.

    Attributes:
        start: no refinement up to and including this step.
        stop: no refinement and no reset from this step on.
        every: steps from one refinement to the next.
        reset_every: steps from one opacity reset to the next; 0: never.
        grow_grad2d: mean loss gradient of a centre, per half an image's size, above which a Gaussian is doubled.
        grow_scale3d: up to this scale it is duplicated, above it split into two of 1/1.6 of the size.
        prune_opacity: fainter ones are removed; a reset clamps all opacities to twice this.
        prune_scale3d: larger ones are removed once opacities were due to be reset (never where `reset_every` is 0).
        max_gaussians: upper bound of their number, and so of memory; where it binds, the largest gradients grow. A cloud
            that starts with more keeps them.
    """

    start: int
    stop: int
    every: int
    reset_every: int
    grow_grad2d: float
    grow_scale3d: float
    prune_opacity: float
    prune_scale3d: float
    max_gaussians: int

    def __post_init__(self) -> None:
        for name in ("start", "stop", "reset_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("every", "grow_grad2d", "grow_scale3d", "prune_scale3d", "max_gaussians"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.prune_opacity < 0.5:
            raise ValueError(f"prune_opacity must lie in (0, 0.5), got {self.prune_opacity}")
