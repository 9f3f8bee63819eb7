"""How long and how fast is trained, as `params.yaml` says."""

from dataclasses import dataclass

from gensync_core.gaussians.densify_params import DensifyParams
from gensync_core.gaussians.render_params import MAX_DEGREE


@dataclass(frozen=True, kw_only=True, slots=True)
class FitParams:
    """Schedule of the training loop.

    Attributes:
        steps: steps on heads; torso_steps: steps on torsos after them.
        batch_size: images a step, of different speakers.
        motion_pairs: adjacent frame pairs a speaker and step for the motion terms.
        network_rate, grid_rate, identity_rate: learning rates of networks, hash tables and identity codes.
        aligner_rate: of the map from a speaker's frame to the canonical box; 0: it stays as the landmarks have it.
        torso_rate: factor on those of networks and hash tables while torsos are trained.
        gaussian_rate: factor on the learning rates of 3DGS.
        weight_decay: of the audio encoder.
        feature_noise: deviation of the noise added to standardised speech features in the motion terms.
    """

    steps: int
    torso_steps: int
    batch_size: int
    motion_pairs: int
    network_rate: float
    grid_rate: float
    identity_rate: float
    aligner_rate: float
    torso_rate: float
    gaussian_rate: float
    weight_decay: float
    feature_noise: float

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "motion_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in (
            "torso_steps",
            "network_rate",
            "grid_rate",
            "identity_rate",
            "aligner_rate",
            "torso_rate",
            "gaussian_rate",
            "weight_decay",
            "feature_noise",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseParams:
    """The static start.

    Attributes:
        steps: optimisation steps, one frame each.
        head_gaussians, torso_gaussians: about how many to start with.
        views: frames to lift the first Gaussians from.
        sh_degree: 0: the head's Gaussians look the same from everywhere; 1 or 2: their colour follows the direction of view.
        ssim, mouth, alpha: weights of the loss terms, as in `losses.weights`; a change of the joint losses leaves coarse alone.
        densify: whether the head's Gaussians are refined by `densification` while they are fitted.
    """

    steps: int
    head_gaussians: int
    torso_gaussians: int
    views: int
    sh_degree: int
    ssim: float
    mouth: float
    alpha: float
    densify: bool
    densification: DensifyParams

    def __post_init__(self) -> None:
        for name in ("steps", "head_gaussians", "torso_gaussians", "views"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("ssim", "mouth", "alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.ssim > 1:
            raise ValueError(f"ssim is a share and must not exceed 1, got {self.ssim}")
        if not 0 <= self.sh_degree <= MAX_DEGREE:
            raise ValueError(f"sh_degree must lie in 0..{MAX_DEGREE}, got {self.sh_degree}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneParams(FitParams):
    """Schedule of the fine-tuning: as joint's, with a tenth of its rates.

    Attributes:
        replay_share: share of the images that show speakers of the cohort, 0 to less than 1.
    """

    replay_share: float

    def __post_init__(self) -> None:
        FitParams.__post_init__(self)  # `super()` without arguments does not know a dataclass with slots
        if not 0 <= self.replay_share < 1:
            raise ValueError(f"replay_share must lie in [0, 1), got {self.replay_share}")
