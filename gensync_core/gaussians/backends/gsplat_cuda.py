"""gsplat's CUDA rasterizer. The only place that imports gsplat, and never on a CPU: without CUDA its wrappers fail late."""

import importlib.util

import torch
from torch import Tensor

_NEAR, _BLUR = 0.01, 0.3


def why_not_available() -> str | None:
    """None where this backend can run, else the reason in words."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed"
    return None


def render(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Image over black, alpha, means2d, radii; shapes as in `rasterize`.

    Raises:
        ValueError: the tensors are not on a CUDA device.
    """
    if not means.is_cuda:
        raise ValueError(f"the gsplat backend takes CUDA tensors, got {means.device}")
    from gsplat import rasterization

    image, alpha, info = rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=_NEAR, eps2d=_BLUR, packed=False
    )
    return image, alpha[..., 0], info["means2d"].detach(), info["radii"].amax(-1).int()
