"""Sorting splats by depth and dealing them out to tiles, front to back."""

import math

import numpy as np

from gensync_core.gaussians.backends.cpu_layout import (
    BLOCK,
    REC_HEIGHT2,
    REC_SHRINK,
    REC_SLOPE,
    REC_TIP,
    REC_X,
    REC_Y,
    TILE_HEIGHT,
    TILE_WIDTH,
)
from gensync_core.gaussians.backends.cpu_runtime import inlined, kernel, vector_kernel
from gensync_core.gaussians.backends.cpu_simd import least, most, ramp8, select, square_root, store

_F0, _F1, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_STRIP = np.float32(TILE_WIDTH)
_STRIPS = 8  # worked out at once

_RADIX_BITS = 11
_RADIX = 1 << _RADIX_BITS
_PASSES = 3
_DIGIT = np.uint32(_RADIX - 1)


@kernel
def first_slots(tile_counts, slot_starts):
    """Prefix sums: splat i owns the slots `slot_starts[i]` to `slot_starts[i + 1]`, one for each of its tiles.

    Returns:
        The number of slots. It is counted in 64 bit; beyond 2^31 - 1 the starts are not usable.
    """
    total = 0
    for i in range(tile_counts.shape[0]):
        slot_starts[i] = total
        total += tile_counts[i]
    slot_starts[tile_counts.shape[0]] = total
    return total


@kernel
def sort_by_depth(depth_bits, tile_counts, order):
    """Write the splats that have tiles into `order`, nearest first; ties keep their index order.

    A radix sort over the bits of the depths, which order like the depths themselves because these are positive.

    Returns:
        How many splats were written.
    """
    num_splats = depth_bits.shape[0]
    source, target = np.empty(num_splats, np.int32), np.empty(num_splats, np.int32)
    histogram = np.zeros((_PASSES, _RADIX), np.int32)
    visible = 0
    for i in range(num_splats):
        if tile_counts[i] > 0:
            source[visible] = i
            visible += 1
            for step in range(_PASSES):
                histogram[step, (depth_bits[i] >> np.uint32(step * _RADIX_BITS)) & _DIGIT] += 1
    for step in range(_PASSES):
        start = 0
        for digit in range(_RADIX):
            count = histogram[step, digit]
            histogram[step, digit] = start
            start += count
        shift = np.uint32(step * _RADIX_BITS)
        for k in range(visible):
            digit = (depth_bits[source[k]] >> shift) & _DIGIT
            target[histogram[step, digit]] = source[k]
            histogram[step, digit] += 1
        source, target = target, source
    order[:visible] = source[:visible]
    return visible


@inlined
def _within(value, low, high):
    return least(most(low, value), high)


@vector_kernel
def find_rows(first, last, records, tile_rects, slot_starts, height, slot_rows):
    """First and last row within each tile that the splats in blocks `first` to `last` touch; last < first: none.

    Exact for each strip of eight columns of pixel centres: the lower and upper bound of the ellipse alpha = 1/255 lie at
    its tips, or, where a tip is outside the strip, at the strip's edge. Eight strips are worked out at once.
    """
    lowest, highest = np.empty(_STRIPS, np.float32), np.empty(_STRIPS, np.float32)
    limit = np.float32(height)
    for i in range(first * BLOCK, min(records.shape[0], last * BLOCK)):
        if slot_starts[i] == slot_starts[i + 1]:
            continue
        left, right, top, bottom = tile_rects[i, 0], tile_rects[i, 1], tile_rects[i, 2], tile_rects[i, 3]
        tip, slope, shrink, height2 = (
            records[i, REC_TIP],
            records[i, REC_SLOPE],
            records[i, REC_SHRINK],
            records[i, REC_HEIGHT2],
        )
        for strip in range(left, right + 1, _STRIPS):
            strip_left = ramp8() * _STRIP + (np.float32(strip * TILE_WIDTH) + _HALF - records[i, REC_X])
            strip_right = strip_left + (_STRIP - _F1)
            x_low, x_high = _within(-tip, strip_left, strip_right), _within(tip, strip_left, strip_right)
            height2_low, height2_high = height2 - shrink * x_low * x_low, height2 - shrink * x_high * x_high
            hit = (height2_low >= _F0) | (height2_high >= _F0)
            low = slope * x_low - square_root(most(height2_low, _F0)) + records[i, REC_Y]
            high = slope * x_high + square_root(most(height2_high, _F0)) + records[i, REC_Y]
            # Limited before the casts below: an int cast of a huge float is undefined.
            store(lowest, 0, select(hit, least(most(low, -_F1), limit + _F1), limit + _F1))
            store(highest, 0, select(hit, least(most(high, -_F1), limit), -_F1))
            for column in range(strip, min(strip + _STRIPS, right + 1)):
                # Rows whose centre, half a pixel below their index, lies inside; and a hair more.
                row_first = np.int32(math.ceil(lowest[column - strip] - np.float32(0.501)))
                row_last = min(np.int32(math.floor(highest[column - strip] - np.float32(0.499))), height - 1)
                slot = slot_starts[i] + column - left
                for row in range(top, bottom + 1):
                    slot_rows[slot, 0] = min(max(row_first - row * TILE_HEIGHT, 0), TILE_HEIGHT)
                    slot_rows[slot, 1] = min(max(row_last - row * TILE_HEIGHT, -1), TILE_HEIGHT - 1)
                    slot += right - left + 1


@kernel
def bin_into_tiles(
    order, visible, tile_rects, slot_starts, slot_rows, tiles_x, tile_starts, entry_splats, entry_rows, slot_entries
):
    """Counting sort of (splat, tile) pairs by tile; within a tile the order of depth stays. Pairs without rows drop out.

    Entries `tile_starts[t]` to `tile_starts[t + 1]` belong to tile t: which splat, and its rows. `slot_entries` says which
    entry became of a slot; -1: none.
    """
    num_tiles = tile_starts.shape[0] - 1
    tile_starts[:] = 0
    for splat in range(tile_rects.shape[0]):  # not in their order: faster where they lie one after the other
        slot = slot_starts[splat]
        if slot == slot_starts[splat + 1]:
            continue
        for row in range(tile_rects[splat, 2], tile_rects[splat, 3] + 1):
            for column in range(tile_rects[splat, 0], tile_rects[splat, 1] + 1):
                tile_starts[row * tiles_x + column] += slot_rows[slot, 1] >= slot_rows[slot, 0]
                slot += 1
    start = 0
    cursor = np.empty(num_tiles, np.int32)
    for tile in range(num_tiles):
        cursor[tile] = start
        count = tile_starts[tile]
        tile_starts[tile] = start
        start += count
    tile_starts[num_tiles] = start
    for k in range(visible):
        splat = order[k]
        slot = slot_starts[splat]
        for row in range(tile_rects[splat, 2], tile_rects[splat, 3] + 1):
            for column in range(tile_rects[splat, 0], tile_rects[splat, 1] + 1):
                slot_entries[slot] = -1
                if slot_rows[slot, 1] >= slot_rows[slot, 0]:
                    tile = row * tiles_x + column
                    entry = cursor[tile]
                    entry_splats[entry] = splat
                    entry_rows[entry, 0], entry_rows[entry, 1] = slot_rows[slot, 0], slot_rows[slot, 1]
                    slot_entries[slot] = entry
                    cursor[tile] = entry + 1
                slot += 1
