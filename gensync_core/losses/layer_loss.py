"""Loss of a rendered layer in front of what is true: compositing, L1 + SSIM and coverage in one, fused on the CPU.

Each of these is a few operations over the whole picture, and together they take longer in torch than SSIM does in kernels.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks
from gensync_core.losses.photometric import check_share, compare, has_kernels, l1_ssim_torch, num_pairs, weighted_sum
from gensync_core.losses.regularization import alpha_error


class Truth(NamedTuple):
    """A frame and where the layer belongs.

    Attributes:
        frame: uint8 [H, W, 3]; labels: of the pixels, uint8 [H, W].
        covered: float32 [256], 1 at the labels that the layer is to cover, else 0: the mask is `covered[labels]`.
    """

    frame: Tensor
    labels: Tensor
    covered: Tensor


class Emphasis(NamedTuple):
    """A box, `x0 <= x < x1` and `y0 <= y < y1` in px, and what |x - y| counts in it beyond the 1 that it counts everywhere."""

    box_px: tuple[int, int, int, int]
    weight: float

    def inside(self, height: int, width: int) -> "Emphasis":
        """The part of the box that lies in the frame, maybe nothing."""
        x0, y0, x1, y1 = self.box_px
        clipped = min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height)
        return Emphasis(clipped, self.weight)


class LayerLoss(NamedTuple):
    """Two scalars: (1 - w) * L1 + w * (1 - SSIM) of the composite, and the mean of |alpha - mask|."""

    photometric: Tensor
    alpha: Tensor


class _FusedLayerLoss(torch.autograd.Function):
    """The values in the first two passes, the gradients, scaled by what comes in, in the third."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, alpha: Tensor, truth: Truth, behind: Tensor, ssim_weight: float, emphasis: Emphasis
    ) -> tuple[Tensor, Tensor]:
        from gensync_core.losses.layer_kernels import compose_rows  # which needs numba to be defined

        x, *rest = (tensor.detach().contiguous() for tensor in (image, alpha, *truth, behind))
        a, frame, labels, covered, colour = (tensor.numpy() for tensor in rest)
        box, extra = emphasis.box_px, np.float32(emphasis.weight)
        packed, derivatives, sums = compare(
            compose_rows, image.shape, 3, x.numpy(), a, frame, labels, covered, colour, box, extra
        )
        ctx.save_for_backward(rest[0], *rest[2:], packed, derivatives)
        ctx.ssim_weight, ctx.emphasis = ssim_weight, emphasis
        similarity, difference = sums[:2] / image.numel()
        photometric = weighted_sum(similarity, difference, ssim_weight)
        return image.new_tensor(photometric), image.new_tensor(sums[2] / alpha.numel())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from gensync_core.losses.layer_kernels import layer_gradient_rows

        alpha, labels, covered, behind, packed, derivatives = (tensor.numpy() for tensor in ctx.saved_tensors)
        by_image, by_alpha = torch.empty(*alpha.shape, 3), torch.empty(alpha.shape)
        box, extra = ctx.emphasis
        photometric, coverage = (gradient.item() for gradient in grad_outputs)
        l1 = (1 - ctx.ssim_weight) * photometric / by_image.numel()
        factors = (-ctx.ssim_weight * photometric / by_image.numel(), l1, l1 * extra, coverage / by_alpha.numel())
        run_in_chunks(
            layer_gradient_rows, num_pairs(len(alpha)), alpha, labels, covered, behind, box, packed, derivatives,
            tuple(np.float32(factor) for factor in factors), by_image.numpy(), by_alpha.numpy(),
        )  # fmt: skip
        return by_image, by_alpha, None, None, None, None


def _layer_loss_torch(
    image: Tensor, alpha: Tensor, truth: Truth, behind: Tensor, ssim_weight: float, emphasis: Emphasis
) -> LayerLoss:
    target, mask = truth.frame.to(image.dtype) / 255, truth.covered.to(image.dtype)[truth.labels.long()]
    composite = image + (1 - alpha)[..., None] * torch.where(mask[..., None] > 0, behind, target)
    x0, y0, x1, y1 = emphasis.box_px
    weight = torch.ones_like(mask)
    weight[y0:y1, x0:x1] += emphasis.weight
    return LayerLoss(l1_ssim_torch(composite, target, ssim_weight, weight), alpha_error(alpha, mask).mean())


# Plain tensors in the signature: wrong shapes are a ValueError with or without a run-time type checker.
def layer_loss(image: Tensor, alpha: Tensor, truth: Truth, behind: Tensor, ssim_weight: float, emphasis: Emphasis) -> LayerLoss:
    """Compare a layer with the frame, over a backdrop: the frame itself, and one colour inside the mask.

    Fused kernels for float32 on the CPU with gradients to image and alpha; plain torch otherwise.

    Args:
        image: premultiplied colours of the layer [H, W, 3].
        alpha: its coverage [H, W].
        truth: the frame and the mask.
        behind: the colour [3].
        ssim_weight: share of the SSIM term, 0..1.
        emphasis: box that counts more in the L1 term, as far as it lies in the frame. The mean stays one over all pixels.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or the share is outside 0..1.

    Source: 3DGS eq. 7; backdrop, box and coverage are our own choice.
    """
    _check(image, alpha, truth, behind)
    check_share(ssim_weight)
    emphasis = emphasis.inside(*alpha.shape)
    if has_kernels(image) and not behind.requires_grad:
        return LayerLoss(*_FusedLayerLoss.apply(image, alpha, truth, behind, ssim_weight, emphasis))
    return _layer_loss_torch(image, alpha, truth, behind, ssim_weight, emphasis)


def _check(image: Tensor, alpha: Tensor, truth: Truth, behind: Tensor) -> None:
    size = alpha.shape
    if len(size) != 2 or alpha.numel() == 0 or image.shape != (*size, 3) or behind.shape != (3,):
        raise ValueError(
            f"image, alpha and behind must be [H, W, 3], [H, W] and [3], got {[tuple(t.shape) for t in (image, alpha, behind)]}"
        )
    if truth.frame.shape != image.shape or truth.labels.shape != size or truth.covered.shape != (256,):
        raise ValueError(
            f"frame, labels and covered must be [H, W, 3], [H, W] and [256], got {[tuple(t.shape) for t in truth]}"
        )
    if image.dtype != alpha.dtype or image.dtype != behind.dtype:
        raise ValueError("image, alpha and behind must have one dtype")
    if [tensor.dtype for tensor in truth] != [torch.uint8, torch.uint8, torch.float32]:
        raise ValueError("frame and labels must be uint8, covered float32")
    if any(tensor.device != image.device for tensor in (alpha, *truth, behind)):
        raise ValueError("all tensors must be on one device")
