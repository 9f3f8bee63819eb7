"""Per-splat kernels: projection of 3-D Gaussians to 2-D splats, and its gradient.

Source: EWA splatting as in 3DGS eq. 5 and gsplat's pinhole camera. Vectors and matrices (row major) are tuples, which the
compiler keeps in registers, unlike small arrays.
"""

import math

import numpy as np

from gensync_core.gaussians.backends.cpu_layout import (
    ALPHA_MIN_LOG2,
    BLOCK,
    BLUR,
    CAM_CX,
    CAM_CY,
    CAM_FX,
    CAM_FY,
    CAM_HEIGHT,
    CAM_R,
    CAM_T,
    CAM_WIDTH,
    CAM_X_MAX,
    CAM_X_MIN,
    CAM_Y_MAX,
    CAM_Y_MIN,
    LOG2_E,
    NEAR,
    REC_BLUE,
    REC_GREEN,
    REC_HEIGHT2,
    REC_LOG_OPACITY,
    REC_OPACITY,
    REC_RED,
    REC_SHEAR,
    REC_SHRINK,
    REC_SLOPE,
    REC_TIP,
    REC_U,
    REC_W,
    REC_X,
    REC_Y,
    TILE_HEIGHT,
    TILE_WIDTH,
)
from gensync_core.gaussians.backends.cpu_runtime import inlined, kernel

# Plain Python floats would turn whole expressions into float64.
_F0, _F1, _F2, _HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
_TINY = np.float32(1e-24)
_LARGEST_RADIUS = np.float32(1e9)
_MARGIN = np.float32(1e-3)
_INV_WIDTH, _INV_HEIGHT = np.float32(1 / TILE_WIDTH), np.float32(1 / TILE_HEIGHT)
_LAST_X, _LAST_Y = np.float32(TILE_WIDTH - 0.5), np.float32(TILE_HEIGHT - 0.5)


@inlined
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inlined
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inlined
def _blend(wa, a, wb, b):
    """The vector wa a + wb b."""
    return wa * a[0] + wb * b[0], wa * a[1] + wb * b[1], wa * a[2] + wb * b[2]


@inlined
def _row_times(v, m):
    """The row vector v M."""
    return (
        v[0] * m[0] + v[1] * m[3] + v[2] * m[6],
        v[0] * m[1] + v[1] * m[4] + v[2] * m[7],
        v[0] * m[2] + v[1] * m[5] + v[2] * m[8],
    )


@inlined
def _times_column(m, v):
    """The column vector M v."""
    return (
        m[0] * v[0] + m[1] * v[1] + m[2] * v[2],
        m[3] * v[0] + m[4] * v[1] + m[5] * v[2],
        m[6] * v[0] + m[7] * v[1] + m[8] * v[2],
    )


@inlined
def _scale_columns(m, s):
    return m[0] * s[0], m[1] * s[1], m[2] * s[2], m[3] * s[0], m[4] * s[1], m[5] * s[2], m[6] * s[0], m[7] * s[1], m[8] * s[2]


@inlined
def _unit_quat(quats, i):
    """The normalised quaternion and the inverse of its length."""
    w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
    inverse = _F1 / math.sqrt(max(w * w + x * x + y * y + z * z, _TINY))
    return (w * inverse, x * inverse, y * inverse, z * inverse), inverse


@inlined
def _rotation(quat):
    """Rotation matrix of a unit quaternion."""
    w, x, y, z = quat
    return (
        _F1 - _F2 * (y * y + z * z), _F2 * (x * y - w * z), _F2 * (x * z + w * y),
        _F2 * (x * y + w * z), _F1 - _F2 * (x * x + z * z), _F2 * (y * z - w * x),
        _F2 * (x * z - w * y), _F2 * (y * z + w * x), _F1 - _F2 * (x * x + y * y),
    )  # fmt: skip


@inlined
def _camera_rotation(camera):
    r = CAM_R
    return (
        camera[r], camera[r + 1], camera[r + 2],
        camera[r + 3], camera[r + 4], camera[r + 5],
        camera[r + 6], camera[r + 7], camera[r + 8],
    )  # fmt: skip


@inlined
def _to_camera(camera, rotation, means, i):
    """The centre of Gaussian i in the camera's frame."""
    x, y, z = _times_column(rotation, (means[i, 0], means[i, 1], means[i, 2]))
    return x + camera[CAM_T], y + camera[CAM_T + 1], z + camera[CAM_T + 2]


@inlined
def _limited_tangents(camera, x, y, inverse_z):
    """x/z and y/z, limited to near the image: far outside, the linearised projection explodes."""
    return (
        min(max(x * inverse_z, camera[CAM_X_MIN]), camera[CAM_X_MAX]),
        min(max(y * inverse_z, camera[CAM_Y_MIN]), camera[CAM_Y_MAX]),
    )


@inlined
def _screen_jacobian(camera, rotation, tangent_x, tangent_y, inverse_z):
    """Rows of T = J R_camera: how a small move in the world moves the projection in x and in y."""
    along_x, along_y = camera[CAM_FX] * inverse_z, camera[CAM_FY] * inverse_z
    z_row = (rotation[6], rotation[7], rotation[8])
    return (
        _blend(along_x, (rotation[0], rotation[1], rotation[2]), -along_x * tangent_x, z_row),
        _blend(along_y, (rotation[3], rotation[4], rotation[5]), -along_y * tangent_y, z_row),
    )


@kernel
def project_splats(
    first, last, means, quats, scales, opacities, colors, camera, tiles_x, tiles_y,
    records, depths, means2d, radii, tile_rects, tile_counts,
):  # fmt: skip
    """Fill record, depth, screen data, rectangle of tiles and number of tiles of the splats in blocks `first` to `last`.

    A splat that is behind the camera, too faint or outside the image gets no tiles and radius 0.
    """
    camera_rotation = _camera_rotation(camera)
    for i in range(first * BLOCK, min(means.shape[0], last * BLOCK)):
        tile_counts[i] = 0
        radii[i, 0] = radii[i, 1] = 0
        x, y, z = _to_camera(camera, camera_rotation, means, i)
        depths[i] = z
        if z <= NEAR:
            means2d[i, 0] = means2d[i, 1] = _F0
            continue
        inverse_z = _F1 / z
        tangent_x, tangent_y = _limited_tangents(camera, x, y, inverse_z)
        t_x, t_y = _screen_jacobian(camera, camera_rotation, tangent_x, tangent_y, inverse_z)
        quat, _ = _unit_quat(quats, i)
        # N = R S; the splat's covariance is T N N^T T^T plus the low-pass filter. u and v are the rows of T N.
        n = _scale_columns(_rotation(quat), (scales[i, 0], scales[i, 1], scales[i, 2]))
        u, v = _row_times(t_x, n), _row_times(t_y, n)
        uu, vv = _dot(u, u), _dot(v, v)
        a, b, c = uu + BLUR, _dot(u, v), vv + BLUR
        # d = a - b^2/c and det = c d, by |u x v|^2 = |u|^2 |v|^2 - (u.v)^2: the difference itself cancels for thin splats.
        uxv = _cross(u, v)
        det = _dot(uxv, uxv) + BLUR * (uu + vv) + BLUR * BLUR
        d = det / c

        opacity = opacities[i]
        log_opacity = math.log2(max(opacity, np.float32(1e-9)))
        # Squared radius, in standard deviations, of the ellipse where alpha falls to 1/255.
        cut = max((log_opacity - ALPHA_MIN_LOG2) * (_F2 / LOG2_E), _F0)
        centre_x, centre_y = camera[CAM_FX] * x * inverse_z + camera[CAM_CX], camera[CAM_FY] * y * inverse_z + camera[CAM_CY]
        extent_x, extent_y = math.sqrt(cut * a) + _MARGIN, math.sqrt(cut * c) + _MARGIN

        means2d[i, 0], means2d[i, 1] = centre_x, centre_y
        u_scale = math.sqrt(_HALF * LOG2_E / d)
        records[i, REC_X], records[i, REC_Y] = centre_x, centre_y
        records[i, REC_U], records[i, REC_SHEAR] = u_scale, u_scale * (b / c)
        records[i, REC_W] = math.sqrt(_HALF * LOG2_E / c)
        records[i, REC_LOG_OPACITY], records[i, REC_OPACITY] = log_opacity, opacity
        records[i, REC_RED], records[i, REC_GREEN], records[i, REC_BLUE] = colors[i, 0], colors[i, 1], colors[i, 2]
        records[i, REC_SLOPE] = b / a
        records[i, REC_HEIGHT2] = (cut + np.float32(1e-4)) * det / a
        records[i, REC_SHRINK] = det / (a * a)
        records[i, REC_TIP] = b / c * extent_y

        if log_opacity < ALPHA_MIN_LOG2 or centre_x + extent_x <= _F0 or centre_x - extent_x >= camera[CAM_WIDTH]:
            continue
        if centre_y + extent_y <= _F0 or centre_y - extent_y >= camera[CAM_HEIGHT]:
            continue
        # Tiles that hold the centre of a pixel inside the extents.
        left = max(0, np.int64(math.ceil((centre_x - extent_x - _LAST_X) * _INV_WIDTH)))
        right = min(tiles_x - 1, np.int64(math.floor((centre_x + extent_x - _HALF) * _INV_WIDTH)))
        top = max(0, np.int64(math.ceil((centre_y - extent_y - _LAST_Y) * _INV_HEIGHT)))
        bottom = min(tiles_y - 1, np.int64(math.floor((centre_y + extent_y - _HALF) * _INV_HEIGHT)))
        count = max(0, right - left + 1) * max(0, bottom - top + 1)
        if count > 0:
            tile_rects[i, 0], tile_rects[i, 1], tile_rects[i, 2], tile_rects[i, 3] = left, right, top, bottom
            tile_counts[i] = count
            radii[i, 0] = np.int32(math.ceil(min(extent_x, _LARGEST_RADIUS)))
            radii[i, 1] = np.int32(math.ceil(min(extent_y, _LARGEST_RADIUS)))


@inlined
def _quat_gradient(quat, inverse_length, g):
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


@inlined
def _sum_slots(moments, slot_rows, first_slot, end_slot):
    """Sum of all slots of a splat, in the order of its tiles: one order whatever the number of threads."""
    m, mu, muu, my, muy, myy, red, green, blue = _F0, _F0, _F0, _F0, _F0, _F0, _F0, _F0, _F0
    for slot in range(first_slot, end_slot):
        if slot_rows[slot, 1] >= slot_rows[slot, 0]:
            m += moments[slot, 0]
            mu += moments[slot, 1]
            muu += moments[slot, 2]
            my += moments[slot, 3]
            muy += moments[slot, 4]
            myy += moments[slot, 5]
            red += moments[slot, 6]
            green += moments[slot, 7]
            blue += moments[slot, 8]
    return m, mu, muu, my, muy, myy, red, green, blue


@kernel
def project_splats_backward(
    first, last, means, quats, scales, camera, records, slot_rows, slot_starts, moments,
    g_means, g_quats, g_scales, g_opacities, g_colors, g_means2d,
):  # fmt: skip
    """Gradients of the splats in blocks `first` to `last` from the moments that the tiles left in their slots."""
    camera_rotation = _camera_rotation(camera)
    fx, fy = camera[CAM_FX], camera[CAM_FY]
    for i in range(first * BLOCK, min(means.shape[0], last * BLOCK)):
        if slot_starts[i] == slot_starts[i + 1]:
            g_means[i, :], g_quats[i, :], g_scales[i, :], g_opacities[i], g_colors[i, :] = _F0, _F0, _F0, _F0, _F0
            g_means2d[i, 0] = g_means2d[i, 1] = _F0
            continue
        m, mu, muu, my, muy, myy, red, green, blue = _sum_slots(moments, slot_rows, slot_starts[i], slot_starts[i + 1])
        g_colors[i, 0], g_colors[i, 1], g_colors[i, 2] = red, green, blue
        g_opacities[i] = m / records[i, REC_OPACITY]

        # Forward values again: cheaper than keeping them.
        x, y, z = _to_camera(camera, camera_rotation, means, i)
        inverse_z = _F1 / z
        tangent_x, tangent_y = _limited_tangents(camera, x, y, inverse_z)
        t_x, t_y = _screen_jacobian(camera, camera_rotation, tangent_x, tangent_y, inverse_z)
        quat, inverse_length = _unit_quat(quats, i)
        rotation, scale = _rotation(quat), (scales[i, 0], scales[i, 1], scales[i, 2])
        n = _scale_columns(rotation, scale)
        u, v = _row_times(t_x, n), _row_times(t_y, n)

        # ln alpha = ln o - (e^2/d + dy^2/c)/2 with e = dx - s dy, s = b/c, d = a - b s; u = sqrt(k/d) e.
        inverse_c = records[i, REC_W] * records[i, REC_W] * (_F2 / LOG2_E)
        u_scale = records[i, REC_U]
        inverse_d = u_scale * u_scale * (_F2 / LOG2_E)
        shear = records[i, REC_SHEAR] / u_scale
        g_centre_x = -mu * (inverse_d / u_scale)
        g_centre_y = -shear * g_centre_x - my * inverse_c
        g_means2d[i, 0], g_means2d[i, 1] = g_centre_x, g_centre_y
        g_d = muu * inverse_d * (_F1 / LOG2_E)
        g_s = muy * (inverse_d / u_scale)
        # From (d, s, c) to a, b, c; b stands twice in the matrix, each place gets half.
        g_xx = g_d
        g_xy = _HALF * g_s * inverse_c - shear * g_d
        g_yy = _HALF * myy * inverse_c * inverse_c - shear * (g_s * inverse_c - shear * g_d)
        # covariance = P P^T with P = T N (rows u, v), hence dL/dP = 2 dL/dcovariance P.
        g_u, g_v = _blend(_F2 * g_xx, u, _F2 * g_xy, v), _blend(_F2 * g_xy, u, _F2 * g_yy, v)

        # dL/dN = T^T dL/dP, by rows; then to the scales and, through dL/dR = dL/dN S, to the quaternion.
        row0 = _blend(t_x[0], g_u, t_y[0], g_v)
        row1 = _blend(t_x[1], g_u, t_y[1], g_v)
        row2 = _blend(t_x[2], g_u, t_y[2], g_v)
        for k in range(3):
            g_scales[i, k] = row0[k] * rotation[k] + row1[k] * rotation[3 + k] + row2[k] * rotation[6 + k]
        g_n = (row0[0], row0[1], row0[2], row1[0], row1[1], row1[2], row2[0], row2[1], row2[2])
        g_quat = _quat_gradient(quat, inverse_length, _scale_columns(g_n, scale))
        g_quats[i, 0], g_quats[i, 1], g_quats[i, 2], g_quats[i, 3] = g_quat

        # dL/dT = dL/dP N^T, dL/dJ = dL/dT R_camera^T, with J = [fx/z, 0, -fx tx/z; 0, fy/z, -fy ty/z].
        g_jx = _times_column(camera_rotation, _times_column(n, g_u))
        g_jy = _times_column(camera_rotation, _times_column(n, g_v))
        # A tangent at its limit passes no gradient on.
        g_tangent_x = -fx * inverse_z * g_jx[2] if camera[CAM_X_MIN] < tangent_x < camera[CAM_X_MAX] else _F0
        g_tangent_y = -fy * inverse_z * g_jy[2] if camera[CAM_Y_MIN] < tangent_y < camera[CAM_Y_MAX] else _F0
        g_x = (g_tangent_x + g_centre_x * fx) * inverse_z
        g_y = (g_tangent_y + g_centre_y * fy) * inverse_z
        g_z = inverse_z * inverse_z * (fx * (tangent_x * g_jx[2] - g_jx[0]) + fy * (tangent_y * g_jy[2] - g_jy[1]))
        g_z -= (g_x * x + g_y * y) * inverse_z
        g_means[i, 0], g_means[i, 1], g_means[i, 2] = _row_times((g_x, g_y, g_z), camera_rotation)
