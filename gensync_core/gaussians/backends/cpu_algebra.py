"""Vectors, 3 x 3 matrices (row major) and quaternions (wxyz) as tuples inside kernels; elements are numbers or F32x8."""

import numpy as np

from gensync_core.gaussians.backends.cpu_runtime import inlined

_F1, _F2 = np.float32(1), np.float32(2)


@inlined
def dot(a, b):
    """The scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inlined
def cross(a, b):
    """The vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inlined
def blend(wa, a, wb, b):
    """The vector wa a + wb b."""
    return wa * a[0] + wb * b[0], wa * a[1] + wb * b[1], wa * a[2] + wb * b[2]


@inlined
def row_times(v, m):
    """The row vector v M."""
    return (
        v[0] * m[0] + v[1] * m[3] + v[2] * m[6],
        v[0] * m[1] + v[1] * m[4] + v[2] * m[7],
        v[0] * m[2] + v[1] * m[5] + v[2] * m[8],
    )


@inlined
def times_column(m, v):
    """The column vector M v."""
    return (
        m[0] * v[0] + m[1] * v[1] + m[2] * v[2],
        m[3] * v[0] + m[4] * v[1] + m[5] * v[2],
        m[6] * v[0] + m[7] * v[1] + m[8] * v[2],
    )


@inlined
def scale_columns(m, s):
    """The matrix M diag(s)."""
    return m[0] * s[0], m[1] * s[1], m[2] * s[2], m[3] * s[0], m[4] * s[1], m[5] * s[2], m[6] * s[0], m[7] * s[1], m[8] * s[2]


@inlined
def rotation_of(quat):
    """Rotation matrix of a unit quaternion."""
    w, x, y, z = quat
    return (
        _F1 - _F2 * (y * y + z * z), _F2 * (x * y - w * z), _F2 * (x * z + w * y),
        _F2 * (x * y + w * z), _F1 - _F2 * (x * x + z * z), _F2 * (y * z - w * x),
        _F2 * (x * z - w * y), _F2 * (y * z + w * x), _F1 - _F2 * (x * x + y * y),
    )  # fmt: skip


@inlined
def quat_gradient(quat, inverse_length, g):
    """dL/dquat (before normalisation) from g = dL/dR."""
    w, x, y, z = quat
    gw = _F2 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]))
    gx = _F2 * (-_F2 * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5]))
    gy = _F2 * (x * (g[1] + g[3]) - _F2 * y * (g[0] + g[8]) + z * (g[5] + g[7]) + w * (g[2] - g[6]))
    gz = _F2 * (x * (g[2] + g[6]) + y * (g[5] + g[7]) - _F2 * z * (g[0] + g[4]) + w * (g[3] - g[1]))
    along = gw * w + gx * x + gy * y + gz * z
    return (
        (gw - along * w) * inverse_length,
        (gx - along * x) * inverse_length,
        (gy - along * y) * inverse_length,
        (gz - along * z) * inverse_length,
    )
