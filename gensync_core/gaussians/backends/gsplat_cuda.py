"""gsplat's CUDA rasterizer. Never called on a CPU: without CUDA gsplat's wrappers fail late."""

import functools
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
    width: int, height: int, shift: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Image over black, alpha, means2d, radii, depths; shapes as in `rasterize`; colors [N, 3] or [C, N, 3].

    Raises:
        ValueError: the tensors are not on a CUDA device.
    """
    if not means.is_cuda:
        raise ValueError(f"the gsplat backend takes CUDA tensors, got {means.device}")
    from gsplat import rasterization

    image, alpha, info = rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=_NEAR, eps2d=_BLUR, packed=False
    )
    if shift is not None:
        info["means2d"].register_hook(functools.partial(_add_gradient, shift))
    return image, alpha[..., 0], info["means2d"].detach(), info["radii"].int(), info["depths"].detach()


def _add_gradient(leaf: Tensor, gradient: Tensor) -> None:
    leaf.grad = gradient.clone() if leaf.grad is None else leaf.grad + gradient
