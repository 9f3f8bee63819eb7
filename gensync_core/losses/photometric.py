"""Photometric loss: (1 - w) L1 + w (1 - SSIM), fused on the CPU, where SSIM in plain torch costs more than rendering.

SSIM as in 3DGS: 11 x 11 Gaussian window of sigma 1.5 px, zeros beyond the border, mean over pixels and channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks, why_not_available
from gensync_core.losses.kernel_layout import RADIUS, WINDOW_TAPS, packed_shape

_C1, _C2 = 0.01**2, 0.03**2


class Comparison(NamedTuple):
    """What the first two passes leave: packed images and derivatives of SSIM (see `ssim_kernels`), and sums in float64.

    Attributes:
        packed: [rows, 4, stride]; derivatives: [rows, 3, stride].
        sums: over the image: SSIM, |x - y|, and whatever else `pack` sums.
    """

    packed: Tensor
    derivatives: Tensor
    sums: np.ndarray


def compare(pack: Callable[..., None], shape: torch.Size, num_sums: int, *arguments: Any) -> Comparison:
    """Pack two images of `shape` [H, W, C] with the kernel `pack` and its arguments, and compare them."""
    from gensync_core.losses.ssim_kernels import compare_rows  # which needs numba to be defined

    height, width, channels = shape
    packed, derivatives = (torch.empty(packed_shape(height, width, channels, planes)) for planes in (4, 3))
    row_sums = np.empty((height, num_sums), np.float32)
    planes = packed.numpy()
    run_in_chunks(pack, len(planes), *arguments, planes, row_sums)
    run_in_chunks(compare_rows, num_pairs(height), width, channels, planes, derivatives.numpy(), row_sums)
    return Comparison(packed, derivatives, row_sums.sum(axis=0, dtype=np.float64))


def num_pairs(height: int) -> int:
    """Pairs of rows, the last one maybe half."""
    return -(-height // 2)


def weighted_sum(similarity: float, difference: float, ssim_weight: float) -> float:
    """(1 - ssim_weight) * difference + ssim_weight * (1 - similarity)."""
    return (1 - ssim_weight) * difference + ssim_weight * (1 - similarity)


class _FusedL1Ssim(torch.autograd.Function):
    """The value in the first two passes, the gradient, scaled by what comes in, in the third."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, ssim_weight: float) -> Tensor:
        from gensync_core.losses.ssim_kernels import pack_rows

        x, y = (tensor.detach().contiguous().numpy() for tensor in (image, target))
        packed, derivatives, sums = compare(pack_rows, image.shape, 2, x, y)
        ctx.save_for_backward(packed, derivatives)
        ctx.shape, ctx.ssim_weight = image.shape, ssim_weight
        similarity, difference = sums / image.numel()
        return image.new_tensor(weighted_sum(similarity, difference, ssim_weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from gensync_core.losses.ssim_kernels import gradient_rows

        planes = [tensor.numpy() for tensor in ctx.saved_tensors]
        gradient = torch.empty(ctx.shape)
        scale = grad_outputs[0].item() / gradient.numel()
        factors = np.float32(-ctx.ssim_weight * scale), np.float32((1 - ctx.ssim_weight) * scale)
        run_in_chunks(gradient_rows, num_pairs(ctx.shape[0]), *planes, *factors, gradient.numpy())
        return gradient, None, None


def has_kernels(*tensors: Tensor) -> bool:
    """Whether the fused kernels can do these: float32 on the CPU, with numba at hand."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors) and why_not_available() is None


def l1_ssim_torch(image: Tensor, target: Tensor, ssim_weight: float, weight: Tensor | None = None) -> Tensor:
    """`l1_ssim` in plain torch: any device and float type, gradients to both images; `weight` [H, W]: of |x - y|."""
    difference = (image - target).abs()
    l1 = difference.mean() if weight is None else (difference * weight[..., None]).mean()
    return (1 - ssim_weight) * l1 + ssim_weight * (1 - _ssim_torch(image, target))


def _ssim_torch(image: Tensor, target: Tensor) -> Tensor:
    channels = image.shape[2]
    taps = torch.as_tensor(WINDOW_TAPS, dtype=image.dtype, device=image.device)
    x, y = image.movedim(2, 0), target.movedim(2, 0)
    stack = torch.stack([x, y, x * x, y * y, x * y]).reshape(1, 5 * channels, *image.shape[:2])
    groups = 5 * channels
    stack = torch.nn.functional.conv2d(
        stack, taps.view(1, 1, 1, -1).repeat(groups, 1, 1, 1), padding=(0, RADIUS), groups=groups
    )
    stack = torch.nn.functional.conv2d(
        stack, taps.view(1, 1, -1, 1).repeat(groups, 1, 1, 1), padding=(RADIUS, 0), groups=groups
    )
    m1, m2, e11, e22, e12 = stack.reshape(5, channels, *image.shape[:2])
    light = (2 * m1 * m2 + _C1) / (m1 * m1 + m2 * m2 + _C1)
    structure = (2 * (e12 - m1 * m2) + _C2) / (e11 - m1 * m1 + e22 - m2 * m2 + _C2)
    return (light * structure).mean()


# Plain tensors in the signatures: wrong shapes are a ValueError with or without a run-time type checker.
def l1_ssim(image: Tensor, target: Tensor, ssim_weight: float = 0.2) -> Tensor:
    """(1 - ssim_weight) * mean(|image - target|) + ssim_weight * (1 - SSIM), a scalar.

    Fused kernels for float32 on the CPU with a gradient to `image` alone; plain torch otherwise.

    Args:
        image: rendered [H, W, C].
        target: true [H, W, C].
        ssim_weight: share of the SSIM term, 0..1.

    Raises:
        ValueError: shapes, dtypes or devices differ, the image is empty, or the share is outside 0..1.

    Source: 3DGS eq. 7.
    """
    if image.ndim != 3 or image.shape != target.shape or image.numel() == 0:
        raise ValueError(f"image and target must be [H, W, C] of one size, got {tuple(image.shape)} and {tuple(target.shape)}")
    if image.dtype != target.dtype or image.device != target.device:
        raise ValueError("image and target must have one dtype and one device")
    check_share(ssim_weight)
    if has_kernels(image) and not target.requires_grad:
        return _FusedL1Ssim.apply(image, target, ssim_weight)
    return l1_ssim_torch(image, target, ssim_weight)


def check_share(ssim_weight: float) -> None:
    """Refuse a share of the SSIM term outside 0..1."""
    if not 0 <= ssim_weight <= 1:
        raise ValueError(f"ssim_weight must lie in 0..1, got {ssim_weight}")


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of two images [H, W, C] in 0..1, a scalar up to 1; with a gradient to `image`.

    Raises:
        ValueError: shapes, dtypes or devices differ, or the image is empty.
    """
    return 1 - l1_ssim(image, target, ssim_weight=1.0)
