"""Terms that keep deformations small, smooth in time and local. All unreduced unless the name says otherwise."""

import torch
from jaxtyping import Float
from torch import Tensor


def deformation_size(offsets: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """L1 size of each offset (MODEL: |deformation|)."""
    return offsets.abs().sum(-1)


def temporal_difference(offsets: Float[Tensor, "P 2 N 3"]) -> Float[Tensor, "P N"]:
    """L1 change of the offsets between the two frames of each adjacent pair."""
    return (offsets[:, 1] - offsets[:, 0]).abs().sum(-1)


def stray_attention(
    attention: Float[Tensor, "B N"], points: Float[Tensor, "N 3"], mouth: Float[Tensor, "3"], radius: float = 0.45
) -> Float[Tensor, "B N"]:
    """Audio attention of points further than `radius` (canonical box) from the mouth's centre."""
    distance = torch.linalg.vector_norm(points - mouth, dim=-1)
    return attention * (distance > radius)


def alpha_error(alpha: Float[Tensor, "H W"], mask: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """L1 between rendered coverage and the parsing mask."""
    return (alpha - mask).abs()
