"""Per-tile kernels: blending front to back, and its gradient.

The speed lies in the two loops over the rows of a tile that a splat touches: two rows are one vector of sixteen pixels, all
that changes from row to row stays in registers or in a few kilobytes of `state`, and there are no branches. Two rows and
not one, because each pixel needs a long chain of operations, and a processor looks ahead by some sixty of them only.
"""

import numpy as np

from gensync_core.gaussians.backends.cpu_layout import (
    ALPHA_MAX,
    ALPHA_MIN_LOG2,
    REC_BLUE,
    REC_GREEN,
    REC_LOG_OPACITY,
    REC_RED,
    REC_SHEAR,
    REC_U,
    REC_W,
    REC_X,
    REC_Y,
    TILE_HEIGHT,
    TILE_WIDTH,
    TRANSMITTANCE_MIN,
)
from gensync_core.gaussians.backends.cpu_runtime import inlined, vector_kernel
from gensync_core.gaussians.backends.cpu_simd import (
    any_lane,
    columns16,
    exp2,
    high_half,
    least,
    load8,
    load16,
    low_half,
    negative_unless,
    prefetch,
    rows16,
    select,
    store,
    sum_of_lanes,
    sums_of_eight,
    zeros8,
)

_F0, _F1, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
# Entries between two looks at whether the whole tile is finished.
_GROUP = 32
# Entries that records are asked for ahead of use: they lie scattered over more memory than the near caches hold.
_AHEAD = 6

# Planes of `state`, each TILE_HEIGHT rows of eight floats and one more, which the second half of a vector may reach.
# First, in both passes, how much light still passes; nothing in the row too many.
_PLANE = (TILE_HEIGHT + 1) * TILE_WIDTH
_PASSING = 0
# Forward: colour gathered so far.
_RED, _GREEN, _BLUE = _PLANE, 2 * _PLANE, 3 * _PLANE
_FORWARD_SIZE = 4 * _PLANE
# Backward: the incoming gradient, and the part of the output that is still behind (weighted by that gradient).
_G_RED, _G_GREEN, _G_BLUE, _BEHIND = _PLANE, 2 * _PLANE, 3 * _PLANE, 4 * _PLANE
_BACKWARD_SIZE = 5 * _PLANE


@vector_kernel
def blend_tiles(first, last, records, entry_splats, entry_rows, tile_starts, tiles_x, image, alpha, entries_used):
    """Render tiles `first` to `last` into `image` (over black) and `alpha`.

    Leaves for the backward pass how many entries of each tile were looked at.
    """
    height, width = alpha.shape
    state = np.empty(_FORWARD_SIZE, np.float32)
    for tile in range(first, last):
        tile_row = tile // tiles_x
        left, top = (tile - tile_row * tiles_x) * TILE_WIDTH, tile_row * TILE_HEIGHT
        num_rows, num_columns = min(TILE_HEIGHT, height - top), min(TILE_WIDTH, width - left)
        state[:] = _F0
        state[: num_rows * TILE_WIDTH] = _F1
        columns = columns16() + (np.float32(left) + _HALF)

        entry, end = tile_starts[tile], tile_starts[tile + 1]
        while entry < end and _is_open(state, num_rows):
            group_end = min(entry + _GROUP, end)
            for e in range(entry, group_end):
                prefetch(records, entry_splats[min(e + _AHEAD, end - 1)], 0)
                _blend_splat(state, records[entry_splats[e]], columns, top, entry_rows[e, 0], entry_rows[e, 1])
            entry = group_end
        entries_used[tile] = entry

        for row in range(num_rows):
            for column in range(num_columns):
                y, x, i = top + row, left + column, row * TILE_WIDTH + column
                image[y, x, 0], image[y, x, 1], image[y, x, 2] = state[i + _RED], state[i + _GREEN], state[i + _BLUE]
                alpha[y, x] = _F1 - abs(state[i + _PASSING])


@inlined
def _is_open(state, num_rows):
    """Whether any pixel of the tile is not finished."""
    still_open = False
    for row in range(num_rows):
        still_open = still_open | any_lane(load8(state, row * TILE_WIDTH) > TRANSMITTANCE_MIN)
    return still_open


@inlined
def _look_through(along_x, dy, shear, w_scale, log_opacity, passing):
    """What two rows of pixels see of a splat: both passes decide by this, so they decide alike.

    Returns:
        u, alpha before and after its clamp, the light left behind the splat, whether the pixel goes on, the splat's weight.
    """
    w = w_scale * dy
    u = along_x - shear * dy
    power = (log_opacity - w * w) - u * u
    free_alpha = select(power >= ALPHA_MIN_LOG2, exp2(power), _F0)
    splat_alpha = least(free_alpha, ALPHA_MAX)
    taken = passing * splat_alpha
    remaining = passing - taken
    goes_on = remaining > TRANSMITTANCE_MIN
    return u, free_alpha, splat_alpha, remaining, goes_on, select(goes_on, taken, _F0)


@inlined
def _blend_splat(state, record, columns, top, row_first, row_last):
    """Put one splat behind what the tile holds already.

    A pixel that would let less than the minimum through is finished: its transmittance is kept with a negative sign.
    """
    shear, w_scale, log_opacity = record[REC_SHEAR], record[REC_W], record[REC_LOG_OPACITY]
    red, green, blue = record[REC_RED], record[REC_GREEN], record[REC_BLUE]
    along_x = (record[REC_X] - columns) * record[REC_U]
    centre_y = record[REC_Y] - (np.float32(top) + _HALF)
    along_y = centre_y - rows16()
    for row in range(row_first, row_last + 1, 2):
        i = row * TILE_WIDTH
        passing = load16(state, i + _PASSING)
        dy = along_y - np.float32(row)
        _, _, _, _, goes_on, weight = _look_through(along_x, dy, shear, w_scale, log_opacity, passing)
        store(state, i + _RED, load16(state, i + _RED) + weight * red)
        store(state, i + _GREEN, load16(state, i + _GREEN) + weight * green)
        store(state, i + _BLUE, load16(state, i + _BLUE) + weight * blue)
        # Not a choice between the old value and a new one: LLVM makes a masked store of that, very slow on some processors.
        store(state, i + _PASSING, negative_unless(goes_on, passing - weight))


@vector_kernel
def blend_tiles_backward(
    first, last, records, entry_splats, entry_rows, tile_starts, tiles_x,
    image, alpha, entries_used, g_image, g_alpha, moments,
):  # fmt: skip
    """Write each entry's moments of dL/d(ln alpha), for tiles `first` to `last`.

    Runs front to back like the forward pass and repeats its decisions exactly. What lies behind a splat is the whole
    output minus what was passed so far, so nothing needs to be stored per pixel and splat.
    """
    height, width = alpha.shape
    state = np.empty(_BACKWARD_SIZE, np.float32)
    for tile in range(first, last):
        tile_row = tile // tiles_x
        left, top = (tile - tile_row * tiles_x) * TILE_WIDTH, tile_row * TILE_HEIGHT
        num_rows, num_columns = min(TILE_HEIGHT, height - top), min(TILE_WIDTH, width - left)
        state[:] = _F0
        state[: num_rows * TILE_WIDTH] = _F1
        for row in range(num_rows):
            for column in range(num_columns):
                y, x, i = top + row, left + column, row * TILE_WIDTH + column
                red, green, blue = g_image[y, x, 0], g_image[y, x, 1], g_image[y, x, 2]
                state[i + _G_RED], state[i + _G_GREEN], state[i + _G_BLUE] = red, green, blue
                state[i + _BEHIND] = (
                    red * image[y, x, 0] + green * image[y, x, 1] + blue * image[y, x, 2] - g_alpha[y, x] * (_F1 - alpha[y, x])
                )
        columns = columns16() + (np.float32(left) + _HALF)

        for e in range(tile_starts[tile], entries_used[tile]):
            prefetch(records, entry_splats[min(e + _AHEAD, entries_used[tile] - 1)], 0)
            rows = entry_rows[e]
            _blend_splat_backward(state, records[entry_splats[e]], columns, top, rows[0], rows[1], moments[e])
        moments[entries_used[tile] : tile_starts[tile + 1]] = _F0


@inlined
def _plus_product(total, left, right):
    """`total` plus the products of both halves."""
    return total + low_half(left) * low_half(right) + high_half(left) * high_half(right)


@inlined
def _blend_splat_backward(state, record, columns, top, row_first, row_last, entry_moments):
    shear, w_scale, log_opacity = record[REC_SHEAR], record[REC_W], record[REC_LOG_OPACITY]
    red, green, blue = record[REC_RED], record[REC_GREEN], record[REC_BLUE]
    along_x = (record[REC_X] - columns) * record[REC_U]
    centre_y = record[REC_Y] - (np.float32(top) + _HALF)
    along_y = centre_y - rows16()
    m, mu, muu, my, muy, myy = zeros8(), zeros8(), zeros8(), zeros8(), zeros8(), zeros8()
    sum_red, sum_green, sum_blue = zeros8(), zeros8(), zeros8()
    for row in range(row_first, row_last + 1, 2):
        i = row * TILE_WIDTH
        passing = load16(state, i + _PASSING)
        dy = along_y - np.float32(row)
        u, free_alpha, splat_alpha, remaining, goes_on, weight = _look_through(
            along_x, dy, shear, w_scale, log_opacity, passing
        )
        store(state, i + _PASSING, select(goes_on, remaining, _F0))
        g_red, g_green, g_blue = load16(state, i + _G_RED), load16(state, i + _G_GREEN), load16(state, i + _G_BLUE)
        color_gradient = red * g_red + green * g_green + blue * g_blue
        sum_red = _plus_product(sum_red, weight, g_red)
        sum_green = _plus_product(sum_green, weight, g_green)
        sum_blue = _plus_product(sum_blue, weight, g_blue)
        behind = load16(state, i + _BEHIND) - weight * color_gradient
        store(state, i + _BEHIND, behind)
        # out = ... + passing (alpha color + (1 - alpha) rest), and behind = passing (1 - alpha) rest, hence:
        g_alpha = passing * color_gradient - behind / (_F1 - splat_alpha)
        g = select(goes_on, select(free_alpha <= ALPHA_MAX, free_alpha * g_alpha, _F0), _F0)
        g_u, g_y = g * u, g * dy
        m = m + low_half(g) + high_half(g)
        mu = mu + low_half(g_u) + high_half(g_u)
        muu = _plus_product(muu, g_u, u)
        my = my + low_half(g_y) + high_half(g_y)
        muy = _plus_product(muy, g_u, dy)
        myy = _plus_product(myy, g_y, dy)
    store(entry_moments, 0, sums_of_eight(m, mu, muu, my, muy, myy, sum_red, sum_green))
    entry_moments[8] = sum_of_lanes(sum_blue)
