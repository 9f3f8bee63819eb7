"""CPU kernels of the hash tri-plane. A unit is one level of one plane; a unit owns its rows of the table.

Because one thread handles a unit from first to last point, sums into the table have one order for any number of threads.
"""

import numpy as np

from gensync_core.gaussians.backends.cpu_runtime import inlined, kernel

_F1 = np.float32(1)
HASH_PRIME = 2654435761
_PRIME, _ONE = np.uint32(HASH_PRIME), np.uint32(1)
POINT_BLOCK = 512


@inlined
def _cell(coordinate, resolution):
    """Index of the cell and position in it, for a coordinate in -1..1 (limited to it)."""
    scaled = (min(max(coordinate, -_F1), _F1) + _F1) * (np.float32(0.5) * np.float32(resolution))
    index = min(np.int32(scaled), np.int32(resolution - 1))
    return np.uint32(index), scaled - np.float32(index)


@inlined
def _corner_rows(x, y, resolution, mask):
    """Rows of the cell's four corners in the unit's table: direct where the whole grid fits (mask 0), else hashed."""
    if mask == 0:
        stride = np.uint32(resolution + 1)
        row = y * stride + x
        return row, row + _ONE, row + stride, row + stride + _ONE
    low, high = y * _PRIME, (y + _ONE) * _PRIME
    return (x ^ low) & mask, ((x + _ONE) ^ low) & mask, (x ^ high) & mask, ((x + _ONE) ^ high) & mask


@kernel
def encode_units(first, last, points, table, unit_starts, resolutions, masks, axes, features):
    """Bilinear look-up of all points in units `first` to `last`; `features` [N, units, F] gets the values.

    Args:
        first: first unit.
        last: unit after the last.
        points: [N, 3] in -1..1.
        table: [rows, F].
        unit_starts: first row of each unit.
        resolutions: cells a side of each unit.
        masks: rows of each unit minus 1 where it is hashed, else 0.
        axes: the two axes of the unit's plane [units, 2].
        features: output.
    """
    num_features = table.shape[1]
    for unit in range(first, last):
        resolution, mask, horizontal, vertical = resolutions[unit], masks[unit], axes[unit, 0], axes[unit, 1]
        rows = table[unit_starts[unit] :]
        for i in range(points.shape[0]):
            x, u = _cell(points[i, horizontal], resolution)
            y, v = _cell(points[i, vertical], resolution)
            row00, row10, row01, row11 = _corner_rows(x, y, resolution, mask)
            w00, w10, w01, w11 = (_F1 - u) * (_F1 - v), u * (_F1 - v), (_F1 - u) * v, u * v
            for f in range(num_features):
                features[i, unit, f] = w00 * rows[row00, f] + w10 * rows[row10, f] + w01 * rows[row01, f] + w11 * rows[row11, f]


@kernel
def encode_units_backward(
    first, last, points, table, unit_starts, resolutions, masks, axes, g_features, g_table, g_coordinates
):
    """Add to `g_table` (zero before) and write dL/d(coordinate in the plane) into `g_coordinates` [units, N, 2].

    The latter may have no points: then the gradient to positions is not wanted.
    """
    num_features = table.shape[1]
    wants_positions = g_coordinates.shape[1] > 0
    for unit in range(first, last):
        resolution, mask, horizontal, vertical = resolutions[unit], masks[unit], axes[unit, 0], axes[unit, 1]
        rows, g_rows = table[unit_starts[unit] :], g_table[unit_starts[unit] :]
        half = np.float32(0.5) * np.float32(resolution)
        for i in range(points.shape[0]):
            x, u = _cell(points[i, horizontal], resolution)
            y, v = _cell(points[i, vertical], resolution)
            row00, row10, row01, row11 = _corner_rows(x, y, resolution, mask)
            w00, w10, w01, w11 = (_F1 - u) * (_F1 - v), u * (_F1 - v), (_F1 - u) * v, u * v
            g_u, g_v = np.float32(0), np.float32(0)
            for f in range(num_features):
                g = g_features[i, unit, f]
                g_rows[row00, f] += w00 * g
                g_rows[row10, f] += w10 * g
                g_rows[row01, f] += w01 * g
                g_rows[row11, f] += w11 * g
                if wants_positions:
                    value00, value10, value01, value11 = rows[row00, f], rows[row10, f], rows[row01, f], rows[row11, f]
                    g_u += g * ((value10 - value00) * (_F1 - v) + (value11 - value01) * v)
                    g_v += g * ((value01 - value00) * (_F1 - u) + (value11 - value10) * u)
            if wants_positions:
                # Outside of the box the position is limited and passes no gradient.
                g_coordinates[unit, i, 0] = g_u * half if abs(points[i, horizontal]) <= _F1 else np.float32(0)
                g_coordinates[unit, i, 1] = g_v * half if abs(points[i, vertical]) <= _F1 else np.float32(0)


@kernel
def sum_position_gradients(first, last, axes, g_coordinates, g_points):
    """Sum over the units, in their order, for the points in blocks `first` to `last`."""
    num_units, num_points = g_coordinates.shape[:2]
    begin, end = first * POINT_BLOCK, min(num_points, last * POINT_BLOCK)
    for i in range(begin, end):
        g_points[i, 0] = g_points[i, 1] = g_points[i, 2] = np.float32(0)
    for unit in range(num_units):
        horizontal, vertical = axes[unit, 0], axes[unit, 1]
        for i in range(begin, end):
            g_points[i, horizontal] += g_coordinates[unit, i, 0]
            g_points[i, vertical] += g_coordinates[unit, i, 1]
