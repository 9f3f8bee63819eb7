"""Rotations as unit quaternions (wxyz), 3x3 matrices and rotation vectors (axis times angle in rad).

Each function takes numpy arrays or torch tensors with any leading axes and gives back the same kind; the torch forms are
differentiable away from angles of pi.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from gensync_core.geometry.arrays import Array, stack

_TINY = 1e-12


def quat_to_matrix(quats: Array) -> Array:
    """Rotation matrices [.., 3, 3] of quaternions [.., 4]; they need not be normalised."""
    w, x, y, z = _unbind(quats / _norm(quats))
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return stack(rows).reshape(*quats.shape[:-1], 3, 3)


def matrix_to_quat(matrices: Array) -> Array:
    """Unit quaternions [.., 4] with w >= 0 of rotation matrices [.., 3, 3].

    Of four equivalent formulas each takes the one with the largest divisor, which keeps it stable near half turns.
    """
    m = matrices
    a, b, c = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    w = (1 + a + b + c, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1])
    x = (w[1], 1 + a - b - c, m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0])
    y = (w[2], x[2], 1 - a + b - c, m[..., 1, 2] + m[..., 2, 1])
    z = (w[3], x[3], y[3], 1 - a - b + c)
    candidates = stack([stack(list(row)) for row in (w, x, y, z)])  # [.., component, formula]
    divisors = stack([w[0], x[1], y[2], z[3]])
    if not isinstance(candidates, np.ndarray):
        import torch

        index = divisors.argmax(-1)[..., None, None].expand(*divisors.shape[:-1], 4, 1)
        quats: Any = torch.take_along_dim(candidates, index, dim=-1)[..., 0]
        quats = quats * torch.where(quats[..., :1] < 0, -1.0, 1.0).to(quats)
    else:
        index = np.argmax(divisors, axis=-1)[..., None, None]
        quats = np.take_along_axis(candidates, index, axis=-1)[..., 0]
        quats = quats * np.where(quats[..., :1] < 0, -1.0, 1.0).astype(quats.dtype)
    return quats / _norm(quats)


def rotvec_to_matrix(rotvecs: Array) -> Array:
    """Rotation matrices [.., 3, 3] of rotation vectors [.., 3] in rad.

    Source: Rodrigues' formula, with sinc so that the zero vector is no special case.
    """
    angle = _norm(rotvecs)[..., None]
    K = skew(rotvecs)
    if not isinstance(rotvecs, np.ndarray):
        import torch

        eye: Any = torch.eye(3).to(rotvecs)
        return eye + torch.sinc(angle / np.pi) * K + 0.5 * torch.sinc(angle / (2 * np.pi)) ** 2 * (K @ K)
    eye = np.eye(3, dtype=rotvecs.dtype)
    return eye + np.sinc(angle / np.pi) * K + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (K @ K)


def matrix_to_rotvec(matrices: Array) -> Array:
    """Rotation vectors [.., 3] in rad, at most pi long, of rotation matrices [.., 3, 3]."""
    return quat_to_rotvec(matrix_to_quat(matrices))


def quat_to_rotvec(quats: Array) -> Array:
    """Rotation vectors [.., 3] in rad, at most pi long, of unit quaternions [.., 4]."""
    if not isinstance(quats, np.ndarray):
        import torch

        quats = quats * torch.where(quats[..., :1] < 0, -1.0, 1.0).to(quats)
        sine = _norm(quats[..., 1:])
        return quats[..., 1:] * (2 * torch.atan2(sine, quats[..., :1]) / sine)
    quats = quats * np.where(quats[..., :1] < 0, -1.0, 1.0).astype(quats.dtype)
    sine = _norm(quats[..., 1:])
    return quats[..., 1:] * (2 * np.arctan2(sine, quats[..., :1]) / sine)


def rotvec_to_quat(rotvecs: Array) -> Array:
    """Unit quaternions [.., 4] of rotation vectors [.., 3] in rad."""
    angle = _norm(rotvecs)
    if not isinstance(rotvecs, np.ndarray):
        import torch

        return torch.cat([torch.cos(angle / 2), 0.5 * torch.sinc(angle / (2 * np.pi)) * rotvecs], dim=-1)
    return np.concatenate([np.cos(angle / 2), 0.5 * np.sinc(angle / (2 * np.pi)) * rotvecs], axis=-1)


def quat_multiply(first: Array, second: Array) -> Array:
    """The quaternion [.., 4] that rotates by `second`, then by `first`."""
    aw, ax, ay, az = _unbind(first)
    bw, bx, by, bz = _unbind(second)
    return stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ]
    )


def slerp(
    first: Float[np.ndarray, "*batch 4"], second: Float[np.ndarray, "*batch 4"], share: Float[np.ndarray, "*batch"]
) -> Float[np.ndarray, "*batch 4"]:
    """Unit quaternions on the shorter arc: `first` at share 0, `second` at share 1."""
    conjugate = first * np.array([1, -1, -1, -1], dtype=first.dtype)
    step = quat_to_rotvec(quat_multiply(second, conjugate)) * np.asarray(share)[..., None]
    return quat_multiply(rotvec_to_quat(step), first)


def angle_between(
    first: Float[np.ndarray, "*batch 3 3"], second: Float[np.ndarray, "*batch 3 3"]
) -> Float[np.ndarray, "*batch"]:
    """Angle in rad of the rotation that takes one matrix into the other."""
    return np.asarray(np.linalg.norm(matrix_to_rotvec(np.swapaxes(first, -1, -2) @ second), axis=-1))


def skew(vectors: Array) -> Array:
    """Matrices [.., 3, 3] that do what the cross product with a vector [.., 3] does."""
    x, y, z = _unbind(vectors)
    zero = x * 0
    return stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(*vectors.shape[:-1], 3, 3)


def _norm(values: Any) -> Any:
    """Length over the last axis, kept, never zero; its gradient at zero is zero."""
    return ((values * values).sum(-1)[..., None] + _TINY**2) ** 0.5


def _unbind(values: Array) -> list[Array]:
    return [values[..., index] for index in range(values.shape[-1])]
