"""Photometric loss: (1 - w) L1 + w (1 - SSIM), fused on the CPU, where SSIM in plain torch costs more than rendering.

SSIM as in 3DGS: 11 x 11 Gaussian window of sigma 1.5 px, zeros beyond the border, mean over pixels and channels.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks, why_not_available
from gensync_core.losses.ssim_kernels import RADIUS, WINDOW_TAPS, blur_rows, compare_rows, gradient_rows

_C1, _C2 = 0.01**2, 0.03**2


class _FusedL1Ssim(torch.autograd.Function):
    """Computes the gradient together with the value; backward only scales it."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, weight: Tensor, ssim_weight: float) -> Tensor:
        height, width, channels = image.shape
        size, row = image.numel(), width * channels
        x, y = (tensor.detach().contiguous().numpy().reshape(height, row) for tensor in (image, target))
        weights = np.repeat(weight.detach().numpy(), channels, axis=1)
        blurred = np.empty((height + 2 * RADIUS, 5, row), np.float32)
        derivatives = np.zeros((height + 2 * RADIUS, 3, row + 2 * RADIUS * channels), np.float32)
        row_sums = np.empty((height, 2), np.float32)
        run_in_chunks(blur_rows, height + 2 * RADIUS, x, y, channels, blurred)
        run_in_chunks(compare_rows, height, x, y, weights, channels, blurred, derivatives, row_sums)
        if ctx.needs_input_grad[0]:
            gradient = np.empty((height, row), np.float32)
            factors = np.float32(-ssim_weight / size), np.float32((1 - ssim_weight) / size)
            run_in_chunks(gradient_rows, height, x, y, weights, channels, derivatives, *factors, gradient)
            ctx.save_for_backward(torch.from_numpy(gradient.reshape(height, width, channels)))
        similarity, difference = row_sums.sum(axis=0, dtype=np.float64) / size
        return image.new_tensor((1 - ssim_weight) * difference + ssim_weight * (1 - similarity))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None, None


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
def l1_ssim(image: Tensor, target: Tensor, ssim_weight: float = 0.2, weight: Tensor | None = None) -> Tensor:
    """(1 - ssim_weight) * mean(weight * |image - target|) + ssim_weight * (1 - SSIM), a scalar.

    Fused kernels for float32 on the CPU with a gradient to `image` alone; plain torch otherwise.

    Args:
        image: rendered [H, W, C].
        target: true [H, W, C].
        ssim_weight: share of the SSIM term, 0..1.
        weight: of each pixel in the L1 term [H, W], 1 where None. The mean is over all pixels, not over the weights' sum.

    Raises:
        ValueError: shapes, dtypes or devices differ, the image is empty, or the share is outside 0..1.

    Source: 3DGS eq. 7.
    """
    if image.ndim != 3 or image.shape != target.shape or image.numel() == 0:
        raise ValueError(f"image and target must be [H, W, C] of one size, got {tuple(image.shape)} and {tuple(target.shape)}")
    if weight is not None and weight.shape != image.shape[:2]:
        raise ValueError(f"weight must be [H, W] = {tuple(image.shape[:2])}, got {tuple(weight.shape)}")
    tensors = [image, target] if weight is None else [image, target, weight]
    if any(tensor.dtype != image.dtype or tensor.device != image.device for tensor in tensors):
        raise ValueError("image, target and weight must have one dtype and one device")
    if not 0 <= ssim_weight <= 1:
        raise ValueError(f"ssim_weight must lie in 0..1, got {ssim_weight}")
    data_has_gradient = any(tensor.requires_grad for tensor in tensors[1:])
    if image.device.type == "cpu" and image.dtype == torch.float32 and not data_has_gradient and why_not_available() is None:
        return _FusedL1Ssim.apply(image, target, image.new_ones(image.shape[:2]) if weight is None else weight, ssim_weight)
    difference = (image - target).abs()
    l1 = difference.mean() if weight is None else (difference * weight[..., None]).mean()
    return (1 - ssim_weight) * l1 + ssim_weight * (1 - _ssim_torch(image, target))


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of two images [H, W, C] in 0..1, a scalar up to 1; with a gradient to `image`.

    Raises:
        ValueError: shapes, dtypes or devices differ, or the image is empty.
    """
    return 1 - l1_ssim(image, target, ssim_weight=1.0)
