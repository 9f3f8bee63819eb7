"""CPU kernels of the hash tri-plane, for two features a row. A unit is one level of one plane.

The backward pass is shared out by groups of units: one thread handles a group from first to last point and owns its rows
of the table, so that sums into the table have one order for any number of threads.

What LLVM does not find by itself is spelt out: the two features of a row travel together, and where rows are not hashed so
do a cell's left and right corner. Tables and features are flat arrays; positions in them count floats.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gensync_core.gaussians.backends.cpu_runtime import inlined, vector_kernel
from gensync_core.model.kernel_layout import HASH_PRIME, NUM_FEATURES, POINT_BLOCK

_F0, _F1, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_PRIME, _ONE = np.uint32(HASH_PRIME), np.uint32(1)
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FUSE = ("contract", "nsz")


def _address(context: Any, builder: Any, kind: Any, array: Any, position: Any, width: int) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), ir.VectorType(_FLOAT, width).as_pointer())


def _lanes(builder: Any, vector: Any, *lanes: int) -> Any:
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_INT, len(lanes)), lanes))


def _vector(builder: Any, *scalars: Any) -> Any:
    vector = ir.Constant(ir.VectorType(_FLOAT, len(scalars)), ir.Undefined)
    for lane, scalar in enumerate(scalars):
        vector = builder.insert_element(vector, scalar, ir.Constant(_INT, lane))
    return vector


def _mix(builder: Any, start: Any, end: Any, share: Any) -> Any:
    """Linear interpolation of vectors, `share` a scalar."""
    step = builder.fsub(end, start, flags=_FUSE)
    weights = _vector(builder, *[share] * start.type.count)
    return builder.fadd(start, builder.fmul(step, weights, flags=_FUSE), flags=_FUSE)


def _load_rows(context: Any, builder: Any, kind: Any, table: Any, corners: Any, *, side_by_side: bool) -> list[Any]:
    """The lower and the upper two corners of (x0 y0, x1 y0, x0 y1, x1 y1) as vectors of four."""
    if side_by_side:
        return [builder.load(_address(context, builder, kind, table, corners[i], 4), align=4) for i in (0, 2)]
    pairs = [builder.load(_address(context, builder, kind, table, corner, NUM_FEATURES), align=4) for corner in corners]
    order = ir.Constant(ir.VectorType(_INT, 4), [0, 1, 2, 3])
    return [builder.shuffle_vector(pairs[i], pairs[i + 1], order) for i in (0, 2)]


def _store_row(context: Any, builder: Any, kind: Any, table: Any, corners: Any, row: Any, *, side_by_side: bool) -> None:
    if side_by_side:
        builder.store(row, _address(context, builder, kind, table, corners[0], 4), align=4)
        return
    for side, corner in enumerate(corners):
        half = _lanes(builder, row, 2 * side, 2 * side + 1)
        builder.store(half, _address(context, builder, kind, table, corner, NUM_FEATURES), align=4)


def _places(array: Any, *positions: Any) -> bool:
    return isinstance(array, types.Array) and array.dtype == types.float32 and all(p == types.int64 for p in positions)


def _blender(*, side_by_side: bool) -> Any:
    def blend(typing_context, table, at00, at10, at01, at11, u, v, out, position):
        if not (_places(table, at00, at10, at01, at11) and _places(out, position)):
            return None

        def emit(context, builder, signature, arguments):
            kinds = signature.args
            lower, upper = _load_rows(context, builder, kinds[0], arguments[0], arguments[1:5], side_by_side=side_by_side)
            column = _mix(builder, lower, upper, arguments[6])
            mixed = _mix(builder, _lanes(builder, column, 0, 1), _lanes(builder, column, 2, 3), arguments[5])
            builder.store(mixed, _address(context, builder, kinds[7], arguments[7], arguments[8], NUM_FEATURES), align=4)
            return context.get_dummy_value()

        return types.void(table, at00, at10, at01, at11, u, v, out, position), emit

    return intrinsic(blend)


_blend_grid, _blend_hashed = _blender(side_by_side=True), _blender(side_by_side=False)
"""Write the bilinear mixture of four corners of a flat table to `out[position : position + 2]`."""


def _differentiator(*, side_by_side: bool) -> Any:
    def slopes(typing_context, table, at00, at10, at01, at11, u, v, gradient, position):
        if not (_places(table, at00, at10, at01, at11) and _places(gradient, position)):
            return None

        def emit(context, builder, signature, arguments):
            kinds = signature.args
            lower, upper = _load_rows(context, builder, kinds[0], arguments[0], arguments[1:5], side_by_side=side_by_side)
            g = builder.load(_address(context, builder, kinds[7], arguments[7], arguments[8], NUM_FEATURES), align=4)
            column, step = _mix(builder, lower, upper, arguments[6]), builder.fsub(upper, lower, flags=_FUSE)
            by_u = builder.fsub(_lanes(builder, column, 2, 3), _lanes(builder, column, 0, 1), flags=_FUSE)
            by_v = _mix(builder, _lanes(builder, step, 0, 1), _lanes(builder, step, 2, 3), arguments[5])
            sums = []
            for slope in (by_u, by_v):
                product = builder.fmul(slope, g, flags=_FUSE)
                parts = [builder.extract_element(product, ir.Constant(_INT, lane)) for lane in range(NUM_FEATURES)]
                sums.append(builder.fadd(*parts, flags=_FUSE))
            return context.make_tuple(builder, signature.return_type, sums)

        result = types.UniTuple(types.float32, 2)
        return result(table, at00, at10, at01, at11, u, v, gradient, position), emit

    return intrinsic(slopes)


_slopes_grid, _slopes_hashed = _differentiator(side_by_side=True), _differentiator(side_by_side=False)
"""Derivatives with respect to u and v of the mixture times `gradient[position : position + 2]`."""


def _scatterer(*, side_by_side: bool) -> Any:
    def scatter(typing_context, table, at00, at10, at01, at11, u, v, gradient, position):
        if not (_places(table, at00, at10, at01, at11) and _places(gradient, position)):
            return None

        def emit(context, builder, signature, arguments):
            kinds, corners, u, v = signature.args, arguments[1:5], arguments[5], arguments[6]
            g = builder.load(_address(context, builder, kinds[7], arguments[7], arguments[8], NUM_FEATURES), align=4)
            left, low = (builder.fsub(ir.Constant(_FLOAT, 1.0), share, flags=_FUSE) for share in (u, v))
            of_row = builder.fmul(_lanes(builder, g, 0, 1, 0, 1), _vector(builder, left, left, u, u), flags=_FUSE)
            # Row after row, each read after the other is written: hashing may send both to the same place.
            for row, share in enumerate((low, v)):
                added = builder.fmul(of_row, _vector(builder, *[share] * 4), flags=_FUSE)
                before = _load_rows(context, builder, kinds[0], arguments[0], corners, side_by_side=side_by_side)[row]
                total, pair = builder.fadd(before, added, flags=_FUSE), corners[2 * row : 2 * row + 2]
                _store_row(context, builder, kinds[0], arguments[0], pair, total, side_by_side=side_by_side)
            return context.get_dummy_value()

        return types.void(table, at00, at10, at01, at11, u, v, gradient, position), emit

    return intrinsic(scatter)


_scatter_grid, _scatter_hashed = _scatterer(side_by_side=True), _scatterer(side_by_side=False)
"""Add `gradient[position : position + 2]` to four corners of a flat table, by their shares in the mixture."""


@inlined
def _place_block(points, begin, end, axis, places):
    """A coordinate of some points, limited to -1..1, as 0..1."""
    for i in range(begin, end):
        places[i - begin] = (min(max(points[i, axis], -_F1), _F1) + _F1) * _HALF


@inlined
def _locate(places, count, resolution, cells, within):
    """Indices of the cells along one axis, and positions in them."""
    highest = np.int32(resolution - 1)
    for i in range(count):
        scaled = places[i] * np.float32(resolution)
        cell = min(np.int32(scaled), highest)
        cells[i] = cell
        within[i] = scaled - np.float32(cell)


@inlined
def _grid_corners(x, y, start, resolution):
    """Places of the cell's four corners in the flat table of a unit whose whole grid fits."""
    low = NUM_FEATURES * (start + np.int64(y) * (resolution + 1) + x)
    high = low + NUM_FEATURES * (resolution + 1)
    return low, low + NUM_FEATURES, high, high + NUM_FEATURES


@inlined
def _hashed_corners(x, y, start, mask):
    left, right = np.uint32(x), np.uint32(x) + _ONE
    lower, upper = np.uint32(y) * _PRIME, (np.uint32(y) + _ONE) * _PRIME
    return (
        NUM_FEATURES * (start + np.int64((left ^ lower) & mask)),
        NUM_FEATURES * (start + np.int64((right ^ lower) & mask)),
        NUM_FEATURES * (start + np.int64((left ^ upper) & mask)),
        NUM_FEATURES * (start + np.int64((right ^ upper) & mask)),
    )


@vector_kernel
def encode_points(first, last, points, table, starts, resolutions, masks, axes, features):
    """Bilinear look-up of the points in blocks `first` to `last`, in all units.

    Args:
        first: first block.
        last: block after the last.
        points: [N, 3] in -1..1.
        table: all rows, flat.
        starts: first row of each unit.
        resolutions: cells a side of each unit.
        masks: rows of each unit minus 1 where it is hashed, else 0.
        axes: the two axes of each unit's plane [units, 2]; units of a plane follow each other.
        features: gets [N, W]: two features of each unit, then the position as far as there is room, then zeros.
    """
    num_units, width = len(starts), features.shape[1]
    flat = features.reshape(-1)
    places = np.empty((3, POINT_BLOCK), np.float32)
    x, y = np.empty(POINT_BLOCK, np.int32), np.empty(POINT_BLOCK, np.int32)
    u, v = np.empty(POINT_BLOCK, np.float32), np.empty(POINT_BLOCK, np.float32)
    for begin in range(first * POINT_BLOCK, min(len(points), last * POINT_BLOCK), POINT_BLOCK):
        end = min(begin + POINT_BLOCK, len(points))
        for axis in range(3):
            _place_block(points, begin, end, axis, places[axis])
        # Unit after unit: the rows of one unit stay in the cache.
        for unit in range(num_units):
            start, resolution, mask = starts[unit], resolutions[unit], masks[unit]
            _locate(places[axes[unit, 0]], end - begin, resolution, x, u)
            _locate(places[axes[unit, 1]], end - begin, resolution, y, v)
            at = begin * width + NUM_FEATURES * unit
            if mask == 0:
                for i in range(end - begin):
                    at00, at10, at01, at11 = _grid_corners(x[i], y[i], start, resolution)
                    _blend_grid(table, at00, at10, at01, at11, u[i], v[i], flat, at)
                    at += width
            else:
                for i in range(end - begin):
                    at00, at10, at01, at11 = _hashed_corners(x[i], y[i], start, mask)
                    _blend_hashed(table, at00, at10, at01, at11, u[i], v[i], flat, at)
                    at += width
        for i in range(begin, end):
            for column in range(NUM_FEATURES * num_units, width):
                axis = column - NUM_FEATURES * num_units
                features[i, column] = points[i, axis] if axis < 3 else _F0


@vector_kernel
def encode_backward(first, last, points, table, starts, resolutions, masks, axes, groups, g_features, g_table, g_coordinates):
    """Add to `g_table` (zero before) and write dL/d(coordinate in the plane) into `g_coordinates` [groups, 2, N].

    `groups` [G + 1] holds the first unit of each group. `g_coordinates` may have no points: then it is not wanted.
    """
    wants_positions, width = g_coordinates.shape[2] > 0, g_features.shape[1]
    flat = g_features.reshape(-1)
    across, along = np.empty(POINT_BLOCK, np.float32), np.empty(POINT_BLOCK, np.float32)
    x, y = np.empty(POINT_BLOCK, np.int32), np.empty(POINT_BLOCK, np.int32)
    u, v = np.empty(POINT_BLOCK, np.float32), np.empty(POINT_BLOCK, np.float32)
    g_x, g_y = np.empty(POINT_BLOCK, np.float32), np.empty(POINT_BLOCK, np.float32)
    for group in range(first, last):
        horizontal, vertical = axes[groups[group], 0], axes[groups[group], 1]
        for begin in range(0, len(points), POINT_BLOCK):
            end = min(begin + POINT_BLOCK, len(points))
            _place_block(points, begin, end, horizontal, across)
            _place_block(points, begin, end, vertical, along)
            g_x[:], g_y[:] = _F0, _F0
            for unit in range(groups[group], groups[group + 1]):
                start, resolution, mask = starts[unit], resolutions[unit], masks[unit]
                _locate(across, end - begin, resolution, x, u)
                _locate(along, end - begin, resolution, y, v)
                at = begin * width + NUM_FEATURES * unit
                half = _HALF * np.float32(resolution)
                if mask == 0:
                    for i in range(end - begin):
                        at00, at10, at01, at11 = _grid_corners(x[i], y[i], start, resolution)
                        _scatter_grid(g_table, at00, at10, at01, at11, u[i], v[i], flat, at)
                        if wants_positions:
                            by_u, by_v = _slopes_grid(table, at00, at10, at01, at11, u[i], v[i], flat, at)
                            g_x[i] += by_u * half
                            g_y[i] += by_v * half
                        at += width
                else:
                    for i in range(end - begin):
                        at00, at10, at01, at11 = _hashed_corners(x[i], y[i], start, mask)
                        _scatter_hashed(g_table, at00, at10, at01, at11, u[i], v[i], flat, at)
                        if wants_positions:
                            by_u, by_v = _slopes_hashed(table, at00, at10, at01, at11, u[i], v[i], flat, at)
                            g_x[i] += by_u * half
                            g_y[i] += by_v * half
                        at += width
            if wants_positions:
                # Outside of the box the position is limited and passes no gradient.
                for i in range(begin, end):
                    g_coordinates[group, 0, i] = g_x[i - begin] if abs(points[i, horizontal]) <= _F1 else _F0
                    g_coordinates[group, 1, i] = g_y[i - begin] if abs(points[i, vertical]) <= _F1 else _F0


@vector_kernel
def sum_position_gradients(first, last, axes, groups, skip, g_features, g_coordinates, g_points):
    """Sum over the groups, in their order, for the points in blocks `first` to `last`.

    If `g_features` has columns for the position, from `skip` on, the sums begin with those.
    """
    for i in range(first * POINT_BLOCK, min(len(g_points), last * POINT_BLOCK)):
        for axis in range(3):
            g_points[i, axis] = g_features[i, skip + axis] if g_features.shape[1] > skip else _F0
        for group in range(len(groups) - 1):
            g_points[i, axes[groups[group], 0]] += g_coordinates[group, 0, i]
            g_points[i, axes[groups[group], 1]] += g_coordinates[group, 1, i]
