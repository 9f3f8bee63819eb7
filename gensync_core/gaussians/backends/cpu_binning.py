"""Sorting splats by depth and dealing them out to tiles, front to back."""

import numpy as np

from gensync_core.gaussians.backends.cpu_runtime import kernel

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


@kernel
def bin_into_tiles(order, visible, tile_rects, slot_starts, tiles_x, tile_starts, entry_splats, entry_slots):
    """Counting sort of (splat, tile) pairs by tile; within a tile the order of depth stays.

    Entries `tile_starts[t]` to `tile_starts[t + 1]` belong to tile t: which splat, and which slot its moments go to.
    """
    num_tiles = tile_starts.shape[0] - 1
    tile_starts[:] = 0
    for k in range(visible):
        splat = order[k]
        for row in range(tile_rects[splat, 2], tile_rects[splat, 3] + 1):
            for column in range(tile_rects[splat, 0], tile_rects[splat, 1] + 1):
                tile_starts[row * tiles_x + column] += 1
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
                tile = row * tiles_x + column
                entry_splats[cursor[tile]] = splat
                entry_slots[cursor[tile]] = slot
                cursor[tile] += 1
                slot += 1
