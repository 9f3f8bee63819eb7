"""The only door to a renderer: picks a backend and checks what goes in.

Shapes: C cameras, N Gaussians, H x W pixels. Cameras are OpenCV: x right, y down, z forward; pixel centres at +0.5.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gensync_core.errors import UsageError
from gensync_core.gaussians.backends import cpu, gsplat_cuda, reference
from gensync_core.gaussians.backends.cpu_runtime import set_default_threads

_log = logging.getLogger(__name__)

BACKENDS = ("auto", "cpu", "gsplat", "reference")
RENDER_MODES = ("RGB", "RGB+D")


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderParams:
    """Which renderer runs, and how wide.

    Attributes:
        backend: `auto` (gsplat where there is a CUDA device, else cpu), `cpu`, `gsplat` or `reference` (slow oracle).
        threads: threads of the CPU kernels, at least 1; they change speed, never a result.
    """

    backend: str
    threads: int

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend is {self.backend!r}, expected one of {', '.join(BACKENDS)}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True, slots=True)
class Backend:
    """A renderer that can run here. `name`: cpu | gsplat | reference; `device`: cpu | cuda; `threads`: of CPU kernels."""

    name: str
    device: str
    threads: int = 1


class RasterResult(NamedTuple):
    """What a rasterizer returns.

    Attributes:
        image: colour [C, H, W, 3], or with depth [C, H, W, 4]: sum of weight times z, not divided by alpha.
        alpha: coverage [C, H, W] in 0..1.
        means2d: centres of the splats [C, N, 2] in px; any value where the radius is 0. No gradient.
        radii: half size in px [C, N] int32; 0 where a Gaussian is not seen.
    """

    image: Tensor
    alpha: Tensor
    means2d: Tensor
    radii: Tensor


def choose_backend(params: RenderParams) -> Backend:
    """Settle which renderer runs and on which device, and say so in the log.

    Raises:
        UsageError: gsplat is asked for by name and cannot run here.
    """
    missing = gsplat_cuda.why_not_available()
    if params.backend == "gsplat" and missing is not None:
        raise UsageError(f"render.backend is gsplat, but {missing}; set it to auto or cpu in params.yaml")
    name = params.backend
    if name == "auto":
        name = "cpu" if missing is not None else "gsplat"
    backend = Backend(name, "cuda" if name == "gsplat" else "cpu", params.threads)
    set_default_threads(params.threads)
    _log.info("rasterizer: %s on %s, %d threads", backend.name, backend.device, backend.threads)
    return backend


# Plain tensors in the signature: wrong shapes are a ValueError with or without a run-time type checker.
def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    background: Tensor | None = None,
    render_mode: str = "RGB",
    backend: Backend,
) -> RasterResult:
    """Render Gaussians with gradients to means, quats, scales, opacities, colors and background.

    Args:
        means: centres [N, 3] in the world.
        quats: rotations [N, 4], wxyz, of any length but 0.
        scales: standard deviations [N, 3], positive.
        opacities: [N] in 0..1.
        colors: [N, 3].
        viewmats: world to camera [C, 4, 4].
        Ks: intrinsics [C, 3, 3] in px.
        width: of the image in px.
        height: of the image in px.
        background: colour [3] or [C, 3] behind everything; black where None.
        render_mode: RGB, or RGB+D for depth as a fourth channel (a second pass on the CPU).
        backend: from `choose_backend`.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, or a value is NaN or infinite.

    Source: 3DGS; thresholds as in gsplat 1.5.3.
    """
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode is {render_mode!r}, expected one of {', '.join(RENDER_MODES)}")
    if width < 1 or height < 1:
        raise ValueError(f"the image must have pixels, got {width}x{height}")
    splats = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
    cameras = {"viewmats": viewmats, "Ks": Ks}
    _check(splats, cameras, background)

    image, alpha, means2d, radii = _render(splats, cameras, width, height, backend)
    if background is not None:
        image = image + background.reshape(-1, 1, 1, 3) * (1 - alpha)[..., None]
    if render_mode == "RGB+D":
        image = torch.cat([image, _depth(splats, cameras, width, height, backend)], dim=-1)
    return RasterResult(image, alpha, means2d, radii)


def _render(
    splats: dict[str, Tensor], cameras: dict[str, Tensor], width: int, height: int, backend: Backend
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backend.name == "cpu":
        if splats["means"].device.type != "cpu":
            raise ValueError(f"the cpu backend takes tensors on the CPU, got {splats['means'].device}")
        return cpu.render(**splats, **cameras, width=width, height=height, threads=backend.threads)
    if backend.name == "gsplat":
        return gsplat_cuda.render(**splats, **cameras, width=width, height=height)
    if backend.name == "reference":
        return reference.render(**splats, **cameras, width=width, height=height)
    raise ValueError(f"no backend {backend.name!r}; choose_backend gives one")


def _depth(splats: dict[str, Tensor], cameras: dict[str, Tensor], width: int, height: int, backend: Backend) -> Tensor:
    """Accumulated depth [C, H, W, 1]: the depths of the centres rendered as a colour, camera by camera."""
    depths = []
    for view, k in zip(cameras["viewmats"], cameras["Ks"], strict=True):
        z = splats["means"] @ view[2, :3] + view[2, 3]
        camera = {"viewmats": view[None], "Ks": k[None]}
        image, *_ = _render({**splats, "colors": z[:, None].expand(-1, 3)}, camera, width, height, backend)
        depths.append(image[..., :1])
    return torch.cat(depths)


def _check(splats: dict[str, Tensor], cameras: dict[str, Tensor], background: Tensor | None) -> None:
    num_splats, num_cameras = len(splats["means"]), len(cameras["viewmats"])
    expected = {
        "means": (num_splats, 3), "quats": (num_splats, 4), "scales": (num_splats, 3), "opacities": (num_splats,),
        "colors": (num_splats, 3), "viewmats": (num_cameras, 4, 4), "Ks": (num_cameras, 3, 3),
    }  # fmt: skip
    tensors = {**splats, **cameras}
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, expected {shape}")
    if num_cameras == 0:
        raise ValueError("no camera")
    if background is not None:
        if tuple(background.shape) not in {(3,), (num_cameras, 3)}:
            raise ValueError(f"background has shape {tuple(background.shape)}, expected (3,) or ({num_cameras}, 3)")
        tensors["background"] = background
    for name, tensor in tensors.items():
        if tensor.device != splats["means"].device or tensor.dtype != splats["means"].dtype:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, means {splats['means'].dtype} on {splats['means'].device}"
            )
        if not torch.isfinite(tensor.detach()).all():
            raise ValueError(f"{name} holds NaN or infinite values")
