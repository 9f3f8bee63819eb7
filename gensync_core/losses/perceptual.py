"""Perceptual loss of a rendered layer, on one patch of it."""

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gensync_core.losses.layer_loss import Truth
from gensync_core.losses.lpips import Lpips

_PATCH_PX, _PATCH_SHARE = 64, 0.25
"""Side of a patch: the larger of a number of pixels and a share of the frame's height."""
_AT_THE_MOUTH = 0.5
"""Share of the patches that lie around the mouth."""


class Look(NamedTuple):
    """What is looked at in one image of a step: the network and three numbers in 0..1 that choose the patch."""

    lpips: Lpips
    draw: tuple[float, float, float]


def patch_error(
    look: Look,
    image: Float[Tensor, "H W 3"],
    alpha: Float[Tensor, "H W"],
    truth: Truth,
    behind: Float[Tensor, "3"],
    mouth_px: tuple[int, int, int, int],
) -> Float[Tensor, ""]:
    """LPIPS of a layer over its backdrop (see `layer_loss`) against the frame, in one patch.

    Half of the patches lie around the mouth's box, the others anywhere in the head's box (own choice).
    """
    height, width = alpha.shape
    covered = truth.covered.to(image.dtype)
    x0, y0, x1, y1 = _patch(look.draw, truth, mouth_px, min(max(_PATCH_PX, int(_PATCH_SHARE * height)), height, width))
    rows, columns = slice(y0, y1), slice(x0, x1)
    target = truth.frame[rows, columns].to(image.dtype) / 255
    inside = covered[truth.labels[rows, columns].long()][..., None] > 0
    composite = image[rows, columns] + (1 - alpha[rows, columns])[..., None] * torch.where(inside, behind, target)
    return look.lpips(composite[None], target[None])[0]


def _patch(
    draw: tuple[float, float, float], truth: Truth, mouth_px: tuple[int, int, int, int], side: int
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a square that lies in the frame."""
    which, *place = draw
    at_the_mouth = which < _AT_THE_MOUTH
    box = mouth_px if at_the_mouth else _box_of(truth.covered[truth.labels.long()].to(torch.uint8))
    corners = []
    for first, last, share, size in zip(box[:2], box[2:], place, reversed(truth.labels.shape), strict=True):
        centre = (first + last) / 2 if at_the_mouth else first + share * (last - first)
        corners.append(min(max(round(centre - side / 2), 0), size - side))
    return corners[0], corners[1], corners[0] + side, corners[1] + side


def _box_of(mask: UInt8[Tensor, "H W"]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around what is not 0; the whole frame where nothing is."""
    rows, columns = mask.amax(1).nonzero(), mask.amax(0).nonzero()
    if len(rows) == 0:
        return 0, 0, mask.shape[1], mask.shape[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
