"""The oracle: the rasterizer in plain torch, tile by tile, in any dtype; gradients by autograd.

Slow, but every step is visible. Same rules as gsplat 1.5.3 and the cpu backend: low-pass filter 0.3 px^2, alpha below
1/255 dropped and clamped at 0.999, a pixel is finished when less than 1e-4 of its light would pass.
"""

import torch
from torch import Tensor

_TILE = 16
_NEAR, _BLUR = 0.01, 0.3
_ALPHA_MAX, _ALPHA_MIN, _TRANSMITTANCE_MIN = 0.999, 1 / 255, 1e-4


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4] (wxyz), which are normalised first."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmat: Tensor, intrinsics: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pinhole EWA projection (3DGS eq. 5).

    Returns:
        Centres [N, 2] in px, covariances [N, 2, 2] in px^2, depths [N].
    """
    rotation = viewmat[:3, :3]
    x, y, depths = (means @ rotation.T + viewmat[:3, 3]).unbind(1)
    # Splats behind the camera are dropped later; a depth of 1 keeps their gradients finite.
    z = torch.where(depths > _NEAR, depths, torch.ones_like(depths))
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tangent_x = torch.clamp(x / z, -cx / fx - margin_x, (width - cx) / fx + margin_x)
    tangent_y = torch.clamp(y / z, -cy / fy - margin_y, (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * tangent_x / z, zero, fy / z, -fy * tangent_y / z], -1).reshape(-1, 2, 3)
    half = jacobian @ rotation @ (rotation_matrices(quats) * scales[:, None, :])
    covariances = half @ half.transpose(1, 2) + _BLUR * torch.eye(2, dtype=means.dtype, device=means.device)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], 1), covariances, depths


def _blend(offsets: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [P, D] over black and transmittance [P] of P pixels from M splats, nearest first.

    `offsets` [M, P, 2]: centre minus pixel.
    """
    distance2 = torch.einsum("mpi,mij,mpj->mp", offsets, conics, offsets)
    alpha = torch.clamp(opacities[:, None] * torch.exp(-0.5 * distance2), max=_ALPHA_MAX)
    alpha = torch.where(alpha >= _ALPHA_MIN, alpha, torch.zeros_like(alpha))
    # The product falls monotonically, so what follows the first splat that is too much is dropped with it.
    alpha = torch.where(torch.cumprod(1 - alpha, 0) > _TRANSMITTANCE_MIN, alpha, torch.zeros_like(alpha))
    passing = torch.cumprod(1 - alpha, 0)
    before = torch.cat([torch.ones_like(passing[:1]), passing[:-1]])
    transmittance = passing[-1] if len(passing) else torch.ones_like(distance2.sum(0))
    return (alpha * before).T @ colors, transmittance


def render_view(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmat: Tensor, intrinsics: Tensor,
    width: int, height: int, shift: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One camera: image over black [H, W, 3], alpha [H, W], means2d [N, 2], radii [N, 2], depths [N]."""
    means2d, covariances, depths = project(means, quats, scales, viewmat, intrinsics, width, height)
    if shift is not None:
        means2d = means2d + shift
    conics = torch.linalg.inv(covariances)
    with torch.no_grad():
        cut = 2 * torch.log(opacities.clamp_min(1e-9) / _ALPHA_MIN).clamp_min(0)
        extents = (cut[:, None] * torch.diagonal(covariances, dim1=1, dim2=2)).sqrt()
        visible = (depths > _NEAR) & (opacities >= _ALPHA_MIN)
        low, high = means2d - extents, means2d + extents
        size = torch.tensor([width, height], dtype=means.dtype, device=means.device)
        radii = torch.where((visible & (high > 0).all(1) & (low < size).all(1))[:, None], extents.ceil(), 0).int()
        order = torch.argsort(depths, stable=True)
    image_rows, alpha_rows = [], []
    for top in range(0, height, _TILE):
        images, alphas = [], []
        for left in range(0, width, _TILE):
            bottom, right = min(top + _TILE, height), min(left + _TILE, width)
            with torch.no_grad():
                hit = visible & (high[:, 0] >= left) & (low[:, 0] <= right) & (high[:, 1] >= top) & (low[:, 1] <= bottom)
                ids = order[hit[order]]
            rows = torch.arange(top, bottom, dtype=means.dtype, device=means.device) + 0.5
            columns = torch.arange(left, right, dtype=means.dtype, device=means.device) + 0.5
            pixels = torch.cartesian_prod(rows, columns).flip(1)
            color, transmittance = _blend(means2d[ids][:, None] - pixels, conics[ids], opacities[ids], colors[ids])
            images.append(color.reshape(bottom - top, right - left, -1))
            alphas.append((1 - transmittance).reshape(bottom - top, right - left))
        image_rows.append(torch.cat(images, 1))
        alpha_rows.append(torch.cat(alphas, 1))
    return torch.cat(image_rows), torch.cat(alpha_rows), means2d.detach(), radii, depths.detach()


def render(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, shift: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Image over black, alpha, means2d, radii, depths; shapes as in `rasterize`; colors [N, 3] or [C, N, 3]."""
    num_cameras = len(viewmats)
    shifts = [None] * num_cameras if shift is None else shift.unbind()
    views = [
        render_view(means, quats, scales, opacities, color, view, k, width, height, move)
        for color, view, k, move in zip(colors.expand(num_cameras, -1, -1), viewmats, Ks, shifts, strict=True)
    ]
    image, alpha, means2d, radii, depths = (torch.stack(parts) for parts in zip(*views, strict=True))
    return image, alpha, means2d, radii, depths
