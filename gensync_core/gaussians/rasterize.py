"""The only door to a renderer: picks a backend and checks what goes in.

Shapes: C cameras, N Gaussians, H x W pixels. Cameras are OpenCV: x right, y down, z forward; pixel centres at +0.5.
"""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gensync_core.errors import UsageError
from gensync_core.gaussians.backends import cpu_runtime, gsplat_cuda, reference
from gensync_core.gaussians.render_params import RenderParams
from gensync_core.gaussians.spherical_harmonics import view_colors

_log = logging.getLogger(__name__)

RENDER_MODES = ("RGB", "RGB+D")


@dataclass(frozen=True, slots=True)
class Backend:
    """A renderer that can run here. `name`: cpu | gsplat | reference; `device`: cpu | cuda; `threads`: of CPU kernels."""

    name: str
    device: str
    threads: int = 1


class ScreenData(NamedTuple):
    """Where the Gaussians landed on the images, and how much the loss wants to move them there: for densification.

    Attributes:
        means2d: centres [C, N, 2] in px; any value where the radius is 0. No gradient.
        radii: half width and half height [C, N, 2] in px, int32; 0 where a Gaussian is not seen.
        depths: z in the camera's frame [C, N]. No gradient.
        shift: zeros [C, N, 2] in px, as if added to `means2d`. None where no gradient is wanted.
    """

    means2d: Tensor
    radii: Tensor
    depths: Tensor
    shift: Tensor | None

    @property
    def gradient(self) -> Tensor | None:
        """dL/dmeans2d [C, N, 2] after `backward()`; None before it."""
        return None if self.shift is None else self.shift.grad


class RasterResult(NamedTuple):
    """What a rasterizer returns.

    Attributes:
        image: colour [C, H, W, 3], or with depth [C, H, W, 4]: sum of weight times z, not divided by alpha.
        alpha: coverage [C, H, W] in 0..1.
        screen: per-Gaussian data.
    """

    image: Tensor
    alpha: Tensor
    screen: ScreenData


def choose_backend(params: RenderParams) -> Backend:
    """Settle which renderer runs and on which device, and say so in the log.

    Raises:
        UsageError: gsplat is asked for by name and cannot run here, or the kernels of the CPU cannot.
    """
    missing = gsplat_cuda.why_not_available()
    if params.backend == "gsplat" and missing is not None:
        raise UsageError(f"render.backend is gsplat, but {missing}; set it to auto or cpu in params.yaml")
    name = params.backend
    if name == "auto":
        name = "cpu" if missing is not None else "gsplat"
    if name == "cpu" and (reason := cpu_runtime.why_not_available()) is not None:
        raise UsageError(reason)
    backend = Backend(name, "cuda" if name == "gsplat" else "cpu", params.threads)
    cpu_runtime.set_default_threads(params.threads)
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
    sh_degree: int | None = None,
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
        colors: [N, 3]; with `sh_degree` coefficients [N, K, 3] of spherical harmonics.
        viewmats: world to camera [C, 4, 4].
        Ks: intrinsics [C, 3, 3] in px.
        width: of the image in px.
        height: of the image in px.
        sh_degree: 0, 1 or 2; colour is then 0.5 plus the harmonics in the direction of view, at least 0.
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
    _check(splats, cameras, background, sh_degree)
    if sh_degree is not None:
        splats["colors"] = view_colors(colors, means, viewmats, sh_degree)
    shift = None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in splats.values()):
        shift = means.new_zeros(len(viewmats), len(means), 2, requires_grad=True)

    render = _renderer(backend, means.device)
    image, alpha, means2d, radii, depths = render(**splats, **cameras, width=width, height=height, shift=shift)
    if background is not None:
        image = image + background.reshape(-1, 1, 1, 3) * (1 - alpha)[..., None]
    if render_mode == "RGB+D":
        z = means @ viewmats[:, 2, :3].T + viewmats[:, 2, 3]  # [N, C]
        as_color = {**splats, "colors": z.T[..., None].expand(-1, -1, 3)}
        image = torch.cat([image, render(**as_color, **cameras, width=width, height=height, shift=None)[0][..., :1]], dim=-1)
    return RasterResult(image, alpha, ScreenData(means2d, radii, depths, shift))


def _renderer(backend: Backend, device: torch.device) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    if backend.name == "cpu":
        if device.type != "cpu":
            raise ValueError(f"the cpu backend takes tensors on the CPU, got {device}")
        from gensync_core.gaussians.backends import cpu  # its vectors need numba to be defined

        return functools.partial(cpu.render, threads=backend.threads)
    if backend.name == "gsplat":
        return gsplat_cuda.render
    if backend.name == "reference":
        return reference.render
    raise ValueError(f"no backend {backend.name!r}; choose_backend gives one")


def _check(splats: dict[str, Tensor], cameras: dict[str, Tensor], background: Tensor | None, sh_degree: int | None) -> None:
    means = splats["means"]
    num_splats, num_cameras = len(means), len(cameras["viewmats"])
    color_shape = (num_splats, 3) if sh_degree is None else (num_splats, *splats["colors"].shape[1:-1], 3)
    expected = {
        "means": (num_splats, 3), "quats": (num_splats, 4), "scales": (num_splats, 3), "opacities": (num_splats,),
        "colors": color_shape, "viewmats": (num_cameras, 4, 4), "Ks": (num_cameras, 3, 3),
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
        if tensor.device != means.device or tensor.dtype != means.dtype:
            raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}, means {means.dtype} on {means.device}")
        # The sum of finite values may overflow, so it only tells where to look; it is much quicker than looking everywhere.
        if not math.isfinite(tensor.detach().sum()) and not torch.isfinite(tensor.detach()).all():
            raise ValueError(f"{name} holds NaN or infinite values")
