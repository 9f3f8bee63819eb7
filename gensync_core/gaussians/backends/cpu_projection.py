"""Per-splat kernels: projection of 3-D Gaussians to 2-D splats, and its gradient.

Eight splats at a time, one in each lane: gathered into `lanes`, worked out, scattered. Vectors and matrices (row major) are
tuples, which the compiler keeps in registers, unlike small arrays; their elements are numbers of the camera, the same for
all splats, or F32x8.

Source: EWA splatting as in 3DGS eq. 5 and gsplat's pinhole camera.
"""

import math

import numpy as np

from gensync_core.gaussians.backends.cpu_algebra import (
    blend,
    cross,
    dot,
    quat_gradient,
    rotation_of,
    row_times,
    scale_columns,
    times_column,
)
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
    MOM_1,
    MOM_RED,
    MOM_U,
    MOM_UU,
    MOM_UY,
    MOM_Y,
    MOM_YY,
    MOMENTS,
    NEAR,
    REC_BLUE,
    REC_GREEN,
    REC_HEIGHT2,
    REC_LOG_OPACITY,
    REC_OPACITY,
    REC_RED,
    REC_SHEAR,
    REC_SHRINK,
    REC_SIZE,
    REC_SLOPE,
    REC_TIP,
    REC_U,
    REC_W,
    REC_X,
    REC_Y,
    TILE_HEIGHT,
    TILE_WIDTH,
)
from gensync_core.gaussians.backends.cpu_runtime import inlined, vector_kernel
from gensync_core.gaussians.backends.cpu_simd import least, load8, most, select, square_root, store, zeros8

# Plain Python floats would turn whole expressions into float64.
_F0, _F1, _F2, _HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
_TINY = np.float32(1e-24)
_LARGEST_RADIUS = np.float32(1e9)
_MARGIN = np.float32(1e-3)
_INV_WIDTH, _INV_HEIGHT = np.float32(1 / TILE_WIDTH), np.float32(1 / TILE_HEIGHT)
# Rows of `lanes`, eight floats each: what is gathered (and, going back, the gradient to it), then what is worked out.
_LANES = 8
_MEAN, _QUAT, _SCALE, _LOG_OPACITY = 0, 3, 7, 10
_DEPTH, _EXTENT_X, _EXTENT_Y = 11, 12, 13
_CENTRE, _SUMS = 11, 13
_RECORD = 14
_MOMENT = _RECORD + REC_SIZE
_LANE_ROWS = _MOMENT + MOMENTS
_LAST_X, _LAST_Y = np.float32(TILE_WIDTH - 0.5), np.float32(TILE_HEIGHT - 0.5)


@inlined
def _unit_quat(lanes):
    """The normalised quaternions and the inverse of their lengths."""
    w, x, y, z = _lane(lanes, _QUAT), _lane(lanes, _QUAT + 1), _lane(lanes, _QUAT + 2), _lane(lanes, _QUAT + 3)
    inverse = _F1 / square_root(most(w * w + x * x + y * y + z * z, _TINY))
    return (w * inverse, x * inverse, y * inverse, z * inverse), inverse


@inlined
def _camera_rotation(camera):
    r = CAM_R
    return (
        camera[r], camera[r + 1], camera[r + 2],
        camera[r + 3], camera[r + 4], camera[r + 5],
        camera[r + 6], camera[r + 7], camera[r + 8],
    )  # fmt: skip


@inlined
def _gather(lanes, start, count, means, quats, scales):
    """Put `count` Gaussians from `start` on into the lanes."""
    for lane in range(count):
        i = start + lane
        for k in range(3):
            lanes[(_MEAN + k) * _LANES + lane] = means[i, k]
            lanes[(_SCALE + k) * _LANES + lane] = scales[i, k]
        for k in range(4):
            lanes[(_QUAT + k) * _LANES + lane] = quats[i, k]


@inlined
def _lane(lanes, row):
    return load8(lanes, row * _LANES)


@inlined
def _put_vector(lanes, row, vector):
    store(lanes, row * _LANES, vector[0])
    store(lanes, (row + 1) * _LANES, vector[1])
    store(lanes, (row + 2) * _LANES, vector[2])


@inlined
def _to_camera(camera, rotation, lanes):
    """The centres in the camera's frame."""
    x, y, z = times_column(rotation, (_lane(lanes, _MEAN), _lane(lanes, _MEAN + 1), _lane(lanes, _MEAN + 2)))
    return x + camera[CAM_T], y + camera[CAM_T + 1], z + camera[CAM_T + 2]


@inlined
def _limited_tangents(camera, x, y, inverse_z):
    """x/z and y/z, limited to near the image: far outside, the linearised projection explodes."""
    return (
        least(most(x * inverse_z, camera[CAM_X_MIN]), camera[CAM_X_MAX]),
        least(most(y * inverse_z, camera[CAM_Y_MIN]), camera[CAM_Y_MAX]),
    )


@inlined
def _screen_jacobian(camera, rotation, tangent_x, tangent_y, inverse_z):
    """Rows of T = J R_camera: how a small move in the world moves the projection in x and in y."""
    along_x, along_y = camera[CAM_FX] * inverse_z, camera[CAM_FY] * inverse_z
    z_row = (rotation[6], rotation[7], rotation[8])
    return (
        blend(along_x, (rotation[0], rotation[1], rotation[2]), -along_x * tangent_x, z_row),
        blend(along_y, (rotation[3], rotation[4], rotation[5]), -along_y * tangent_y, z_row),
    )


@vector_kernel
def project_splats(
    first, last, means, quats, scales, opacities, colors, camera, tiles_x, tiles_y,
    records, depths, means2d, radii, tile_rects, tile_counts,
):  # fmt: skip
    """Fill record, depth, screen data, rectangle of tiles and number of tiles of the splats in blocks `first` to `last`.

    A splat that is behind the camera, too faint or outside the image gets no tiles and radius 0.
    """
    camera_rotation = _camera_rotation(camera)
    lanes = np.zeros(_LANE_ROWS * _LANES, np.float32)
    end = min(means.shape[0], last * BLOCK)
    for start in range(first * BLOCK, end, _LANES):
        count = min(_LANES, end - start)
        _gather(lanes, start, count, means, quats, scales)
        for lane in range(count):
            lanes[_LOG_OPACITY * _LANES + lane] = math.log2(max(opacities[start + lane], np.float32(1e-9)))

        x, y, z = _to_camera(camera, camera_rotation, lanes)
        inverse_z = _F1 / most(z, NEAR)
        tangent_x, tangent_y = _limited_tangents(camera, x, y, inverse_z)
        t_x, t_y = _screen_jacobian(camera, camera_rotation, tangent_x, tangent_y, inverse_z)
        quat, _ = _unit_quat(lanes)
        # N = R S; the splat's covariance is T N N^T T^T plus the low-pass filter. u and v are the rows of T N.
        n = scale_columns(rotation_of(quat), (_lane(lanes, _SCALE), _lane(lanes, _SCALE + 1), _lane(lanes, _SCALE + 2)))
        u, v = row_times(t_x, n), row_times(t_y, n)
        uu, vv = dot(u, u), dot(v, v)
        a, b, c = uu + BLUR, dot(u, v), vv + BLUR
        # d = a - b^2/c and det = c d, by |u x v|^2 = |u|^2 |v|^2 - (u.v)^2: the difference itself cancels for thin splats.
        uxv = cross(u, v)
        det = dot(uxv, uxv) + BLUR * (uu + vv) + BLUR * BLUR
        inverse_a, inverse_c = _F1 / a, _F1 / c
        u_scale = square_root(_HALF * LOG2_E * c / det)
        # Squared radius, in standard deviations, of the ellipse where alpha falls to 1/255.
        cut = most((_lane(lanes, _LOG_OPACITY) - ALPHA_MIN_LOG2) * (_F2 / LOG2_E), _F0)
        extent_y = square_root(cut * c) + _MARGIN
        store(lanes, _DEPTH * _LANES, z)
        store(lanes, _EXTENT_X * _LANES, square_root(cut * a) + _MARGIN)
        store(lanes, _EXTENT_Y * _LANES, extent_y)
        store(lanes, (_RECORD + REC_X) * _LANES, x * inverse_z * camera[CAM_FX] + camera[CAM_CX])
        store(lanes, (_RECORD + REC_Y) * _LANES, y * inverse_z * camera[CAM_FY] + camera[CAM_CY])
        store(lanes, (_RECORD + REC_U) * _LANES, u_scale)
        store(lanes, (_RECORD + REC_SHEAR) * _LANES, u_scale * (b * inverse_c))
        store(lanes, (_RECORD + REC_W) * _LANES, square_root(_HALF * LOG2_E * inverse_c))
        store(lanes, (_RECORD + REC_LOG_OPACITY) * _LANES, _lane(lanes, _LOG_OPACITY))
        store(lanes, (_RECORD + REC_SLOPE) * _LANES, b * inverse_a)
        store(lanes, (_RECORD + REC_HEIGHT2) * _LANES, (cut + np.float32(1e-4)) * det * inverse_a)
        store(lanes, (_RECORD + REC_SHRINK) * _LANES, det * inverse_a * inverse_a)
        store(lanes, (_RECORD + REC_TIP) * _LANES, b * inverse_c * extent_y)

        for lane in range(count):
            i = start + lane
            for k in range(REC_SIZE):
                records[i, k] = lanes[(_RECORD + k) * _LANES + lane]
            records[i, REC_OPACITY] = opacities[i]
            records[i, REC_RED], records[i, REC_GREEN], records[i, REC_BLUE] = colors[i, 0], colors[i, 1], colors[i, 2]
            depths[i], means2d[i, 0], means2d[i, 1] = lanes[_DEPTH * _LANES + lane], records[i, REC_X], records[i, REC_Y]
            extent_x, extent_y = lanes[_EXTENT_X * _LANES + lane], lanes[_EXTENT_Y * _LANES + lane]
            seen = depths[i] > NEAR and records[i, REC_LOG_OPACITY] >= ALPHA_MIN_LOG2
            _cover_tiles(i, seen, camera, extent_x, extent_y, tiles_x, tiles_y, means2d, radii, tile_rects, tile_counts)


@inlined
def _cover_tiles(i, seen, camera, extent_x, extent_y, tiles_x, tiles_y, means2d, radii, tile_rects, tile_counts):
    """Tiles that hold the centre of a pixel inside the extents, and the radii."""
    low_x, high_x = max(means2d[i, 0] - extent_x, -_F1), min(means2d[i, 0] + extent_x, camera[CAM_WIDTH] + _F1)
    low_y, high_y = max(means2d[i, 1] - extent_y, -_F1), min(means2d[i, 1] + extent_y, camera[CAM_HEIGHT] + _F1)
    tile_counts[i] = 0
    radii[i, 0] = radii[i, 1] = 0
    if seen and high_x > _F0 and low_x < camera[CAM_WIDTH] and high_y > _F0 and low_y < camera[CAM_HEIGHT]:
        left = max(0, np.int32(math.ceil((low_x - _LAST_X) * _INV_WIDTH)))
        right = min(tiles_x - 1, np.int32(math.floor((high_x - _HALF) * _INV_WIDTH)))
        top = max(0, np.int32(math.ceil((low_y - _LAST_Y) * _INV_HEIGHT)))
        bottom = min(tiles_y - 1, np.int32(math.floor((high_y - _HALF) * _INV_HEIGHT)))
        count = max(0, right - left + 1) * max(0, bottom - top + 1)
        tile_rects[i, 0], tile_rects[i, 1], tile_rects[i, 2], tile_rects[i, 3] = left, right, top, bottom
        tile_counts[i] = count
        radii[i, 0] = np.int32(math.ceil(min(extent_x, _LARGEST_RADIUS)))
        radii[i, 1] = np.int32(math.ceil(min(extent_y, _LARGEST_RADIUS)))


@inlined
def _gather_moments(lanes, start, count, records, slot_entries, slot_starts, moments):
    """Put the sums over all entries of `count` splats into the lanes, and what of their records is needed.

    In the order of a splat's tiles: one order whatever the number of threads.
    """
    for lane in range(count):
        i = start + lane
        sums, last_sum = zeros8(), _F0
        for slot in range(slot_starts[i], slot_starts[i + 1]):
            entry = slot_entries[slot]
            if entry >= 0:
                sums = sums + load8(moments, entry * MOMENTS)
                last_sum += moments[entry, MOMENTS - 1]
        store(lanes, _SUMS * _LANES, sums)
        for k in range(MOMENTS - 1):
            lanes[(_MOMENT + k) * _LANES + lane] = lanes[_SUMS * _LANES + k]
        lanes[(_MOMENT + MOMENTS - 1) * _LANES + lane] = last_sum
        for k in range(REC_U, REC_W + 1):
            lanes[(_RECORD + k) * _LANES + lane] = records[i, k]
        lanes[(_RECORD + REC_OPACITY) * _LANES + lane] = records[i, REC_OPACITY]


@vector_kernel
def project_splats_backward(
    first, last, means, quats, scales, camera, records, slot_entries, slot_starts, moments,
    g_means, g_quats, g_scales, g_opacities, g_colors, g_means2d,
):  # fmt: skip
    """Gradients of the splats in blocks `first` to `last` from the moments that the tiles left for their entries."""
    camera_rotation = _camera_rotation(camera)
    fx, fy = camera[CAM_FX], camera[CAM_FY]
    lanes = np.ones(_LANE_ROWS * _LANES, np.float32)
    end = min(means.shape[0], last * BLOCK)
    for start in range(first * BLOCK, end, _LANES):
        count = min(_LANES, end - start)
        _gather(lanes, start, count, means, quats, scales)
        _gather_moments(lanes, start, count, records, slot_entries, slot_starts, moments)

        # Forward values again: cheaper than keeping them.
        x, y, z = _to_camera(camera, camera_rotation, lanes)
        inverse_z = _F1 / most(z, NEAR)
        tangent_x, tangent_y = _limited_tangents(camera, x, y, inverse_z)
        t_x, t_y = _screen_jacobian(camera, camera_rotation, tangent_x, tangent_y, inverse_z)
        quat, inverse_length = _unit_quat(lanes)
        rotation, scale = rotation_of(quat), (_lane(lanes, _SCALE), _lane(lanes, _SCALE + 1), _lane(lanes, _SCALE + 2))
        n = scale_columns(rotation, scale)
        u, v = row_times(t_x, n), row_times(t_y, n)

        # ln alpha = ln o - (e^2/d + dy^2/c)/2 with e = dx - s dy, s = b/c, d = a - b s; u = sqrt(k/d) e.
        w_scale, u_scale = _lane(lanes, _RECORD + REC_W), _lane(lanes, _RECORD + REC_U)
        inverse_c, u_over_d = w_scale * w_scale * (_F2 / LOG2_E), u_scale * (_F2 / LOG2_E)
        shear = _lane(lanes, _RECORD + REC_SHEAR) / u_scale
        g_centre_x = -_lane(lanes, _MOMENT + MOM_U) * u_over_d
        g_centre_y = -shear * g_centre_x - _lane(lanes, _MOMENT + MOM_Y) * inverse_c
        g_d = _lane(lanes, _MOMENT + MOM_UU) * u_scale * u_over_d * (_F1 / LOG2_E)
        r = _lane(lanes, _MOMENT + MOM_UY) * u_over_d * inverse_c
        twice_g_c = _lane(lanes, _MOMENT + MOM_YY) * inverse_c * inverse_c
        # covariance = P P^T + blur with P = T N (rows u, v). Not by way of its entries a, b, c: their gradients cancel for
        # long thin splats. e = u - s v in a form that does not.
        e = blend(inverse_c, cross(v, cross(u, v)), inverse_c * BLUR, u)
        rest = blend(r, e, twice_g_c, v)
        g_u = blend(_F2 * g_d, e, r, v)
        g_v = blend(-shear, g_u, _F1, rest)
        # To the scales: u_k and v_k are scale_k times the rows of T R, and u_k - s v_k is e_k.
        g_scale = (
            (g_u[0] * e[0] + rest[0] * v[0]) / most(scale[0], _TINY),
            (g_u[1] * e[1] + rest[1] * v[1]) / most(scale[1], _TINY),
            (g_u[2] * e[2] + rest[2] * v[2]) / most(scale[2], _TINY),
        )

        # dL/dN = T^T dL/dP, by rows; then, through dL/dR = dL/dN S, to the quaternion.
        row0 = blend(t_x[0], g_u, t_y[0], g_v)
        row1 = blend(t_x[1], g_u, t_y[1], g_v)
        row2 = blend(t_x[2], g_u, t_y[2], g_v)
        g_n = (row0[0], row0[1], row0[2], row1[0], row1[1], row1[2], row2[0], row2[1], row2[2])
        g_quat = quat_gradient(quat, inverse_length, scale_columns(g_n, scale))

        # dL/dT = dL/dP N^T, dL/dJ = dL/dT R_camera^T, with J = [fx/z, 0, -fx tx/z; 0, fy/z, -fy ty/z].
        g_jx = times_column(camera_rotation, times_column(n, g_u))
        g_jy = times_column(camera_rotation, times_column(n, g_v))
        # A tangent at its limit passes no gradient on.
        free_x = (tangent_x > camera[CAM_X_MIN]) & (tangent_x < camera[CAM_X_MAX])
        free_y = (tangent_y > camera[CAM_Y_MIN]) & (tangent_y < camera[CAM_Y_MAX])
        g_tangent_x = select(free_x, -fx * inverse_z * g_jx[2], _F0)
        g_tangent_y = select(free_y, -fy * inverse_z * g_jy[2], _F0)
        g_x = (g_tangent_x + g_centre_x * fx) * inverse_z
        g_y = (g_tangent_y + g_centre_y * fy) * inverse_z
        g_z = inverse_z * inverse_z * (fx * (tangent_x * g_jx[2] - g_jx[0]) + fy * (tangent_y * g_jy[2] - g_jy[1]))
        g_mean = row_times((g_x, g_y, g_z - (g_x * x + g_y * y) * inverse_z), camera_rotation)

        _put_vector(lanes, _MEAN, g_mean)
        _put_vector(lanes, _SCALE, g_scale)
        _put_vector(lanes, _QUAT, (g_quat[0], g_quat[1], g_quat[2]))
        store(lanes, (_QUAT + 3) * _LANES, g_quat[3])
        store(lanes, _CENTRE * _LANES, g_centre_x)
        store(lanes, (_CENTRE + 1) * _LANES, g_centre_y)
        store(lanes, _LOG_OPACITY * _LANES, _lane(lanes, _MOMENT + MOM_1) / _lane(lanes, _RECORD + REC_OPACITY))
        for lane in range(count):
            i = start + lane
            if slot_starts[i] == slot_starts[i + 1]:
                g_means[i, :], g_quats[i, :], g_scales[i, :], g_opacities[i], g_colors[i, :] = _F0, _F0, _F0, _F0, _F0
                g_means2d[i, 0] = g_means2d[i, 1] = _F0
                continue
            for k in range(3):
                g_means[i, k] = lanes[(_MEAN + k) * _LANES + lane]
                g_scales[i, k] = lanes[(_SCALE + k) * _LANES + lane]
                g_colors[i, k] = lanes[(_MOMENT + MOM_RED + k) * _LANES + lane]
            for k in range(4):
                g_quats[i, k] = lanes[(_QUAT + k) * _LANES + lane]
            g_opacities[i] = lanes[_LOG_OPACITY * _LANES + lane]
            g_means2d[i, 0], g_means2d[i, 1] = lanes[_CENTRE * _LANES + lane], lanes[(_CENTRE + 1) * _LANES + lane]
