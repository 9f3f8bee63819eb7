"""Colours that depend on the direction of view: real spherical harmonics of degree 0 to 2.

Shapes: C cameras, N Gaussians, K coefficients, at least (degree + 1)^2.
Source: 3DGS; order and signs of the basis as in gsplat 1.5.3.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.gaussians.render_params import MAX_DEGREE

SH_C0 = 0.28209479177387814
"""The constant harmonic."""
_C1 = 0.4886025119029199
_C2 = 1.0925484305920792
_C2_ZZ = 0.31539156525252005
_C2_XX = 0.5462742152960396


def basis(directions: Float[Tensor, "... 3"], degree: int) -> Float[Tensor, "... K"]:
    """Values of the harmonics up to a degree in unit directions.

    Raises:
        ValueError: the degree is not 0, 1 or 2.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"sh_degree must be 0, 1 or 2, got {degree}")
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        values += [_C2 * x * y, -_C2 * y * z, _C2_ZZ * (3 * z * z - 1), -_C2 * x * z, _C2_XX * (x * x - y * y)]
    return torch.stack(values, -1)


# Plain tensors in the signature: wrong shapes are a ValueError with or without a run-time type checker.
def view_colors(sh: Tensor, means: Tensor, viewmats: Tensor, degree: int) -> Tensor:
    """Colours [C, N, 3] of Gaussians as cameras see them, at least 0, with gradients to `sh` and `means`.

    Args:
        sh: coefficients [N, K, 3].
        means: centres [N, 3] in the world.
        viewmats: world to camera [C, 4, 4].
        degree: how many of the coefficients count: (degree + 1)^2.

    Raises:
        ValueError: the degree is not 0, 1 or 2, or there are too few coefficients for it.
    """
    count = (degree + 1) ** 2
    if sh.ndim != 3 or sh.shape[1] < count:
        raise ValueError(f"sh_degree {degree} needs colors of shape (N, {count} or more, 3), got {tuple(sh.shape)}")
    if degree == 0:
        return torch.clamp_min(0.5 + SH_C0 * sh[:, 0], 0.0).expand(len(viewmats), -1, -1)
    centres = -torch.einsum("cji,cj->ci", viewmats[:, :3, :3], viewmats[:, :3, 3])
    directions = torch.nn.functional.normalize(means - centres[:, None], dim=-1)
    return torch.clamp_min(0.5 + torch.einsum("cnk,nkd->cnd", basis(directions, degree), sh[:, :count]), 0.0)
