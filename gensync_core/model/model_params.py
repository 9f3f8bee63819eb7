"""The architecture of the shared network, as `params.yaml` says."""

from dataclasses import dataclass

from gensync_core.model.kernel_layout import COLUMNS

DEFORMABLE = ("mean", "opacity", "scale", "quat")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelParams:
    """Architecture of the shared network.

    Attributes:
        identity_size: numbers in a speaker's code z.
        audio_size: numbers in the audio code a and in every condition token.
        neighbours: windows pooled by the temporal smooth module.
        window_size: frames (at 25 fps) in one window.
        smoothing: pool over the neighbours, or read one window as long as theirs together.
        fusion: `product | add | none`, see `disentanglement`.
        rank: rank of the product.
        deform: which attributes the head field moves, among mean, opacity, scale, quat.
        mean_scale: size of one output unit in the canonical box.
        triplane: `hash | dense`, where the head field's features are looked up.
        triplane_levels, triplane_finest, triplane_log2_table: the head's multi-resolution hash tri-plane; a dense one has
            as many features and parameters, in half as many levels.
        attention: Gaussians attend to the condition tokens by place, or hear the mean of all tokens.
        torso_field: the torso is deformed by its field, or only goes where the body was tracked.
        hidden_size: width of the head decoder, a multiple of 16.
        mouth_radius: so far from the mouth's centre (canonical box) the head field hears no pose and no brows; 0: it
            hears them everywhere.
    """

    identity_size: int
    audio_size: int
    neighbours: int
    window_size: int
    smoothing: bool
    fusion: str
    rank: int
    deform: list[str]
    mean_scale: float
    triplane: str
    triplane_levels: int
    triplane_finest: int
    triplane_log2_table: int
    attention: bool
    torso_field: bool
    hidden_size: int
    mouth_radius: float

    def __post_init__(self) -> None:
        if self.fusion not in ("product", "add", "none"):
            raise ValueError(f"fusion is {self.fusion!r}, expected product, add or none")
        if self.triplane not in ("hash", "dense"):
            raise ValueError(f"triplane is {self.triplane!r}, expected hash or dense")
        if not self.deform or not set(self.deform) <= set(DEFORMABLE):
            raise ValueError(f"deform is {self.deform}, expected some of {DEFORMABLE}")
        for name in ("identity_size", "audio_size", "neighbours", "window_size", "rank", "triplane_levels", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.hidden_size % COLUMNS:
            raise ValueError(
                f"hidden_size must be a multiple of {COLUMNS}, as wide as the kernels' tiles, got {self.hidden_size}"
            )
        if self.mouth_radius < 0:
            raise ValueError(f"mouth_radius must not be negative, got {self.mouth_radius}")
        if not 0 < self.mean_scale <= 1:
            raise ValueError(f"mean_scale must lie in (0, 1], got {self.mean_scale}")
