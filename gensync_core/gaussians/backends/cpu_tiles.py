"""Per-tile kernels: blending front to back, and its gradient.

The speed lies in the innermost loops. A splat's rows within a tile are one contiguous run of flat pixels; the loop over
it has no branches (selects only), reads and writes one array `state` at constant offsets (several arrays would need
alias checks, a computed offset costs five times as much) and so compiles to full vectors.
"""

import math

import numpy as np

from gensync_core.gaussians.backends.cpu_layout import (
    ALPHA_MAX,
    ALPHA_MIN_LOG2,
    MOMENTS,
    REC_BLUE,
    REC_GREEN,
    REC_HEIGHT2,
    REC_LOG_OPACITY,
    REC_RED,
    REC_SHRINK,
    REC_SLOPE,
    REC_TIP,
    REC_X,
    REC_XX,
    REC_XY,
    REC_Y,
    REC_YY,
    TILE_HEIGHT,
    TILE_PIXELS,
    TILE_WIDTH,
    TRANSMITTANCE_MIN,
)
from gensync_core.gaussians.backends.cpu_runtime import inlined, kernel

_F0, _F1, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_POWER_MIN = np.float32(-8)
# Entries between two looks at whether the whole tile is finished.
_GROUP = 32

# Planes of `state`, in pixels. Both passes: how much light still passes, and the pixels' centres.
_PASSING = 0
_CENTRE_X, _CENTRE_Y = TILE_PIXELS, 2 * TILE_PIXELS
# Forward: colour gathered so far.
_RED, _GREEN, _BLUE = 3 * TILE_PIXELS, 4 * TILE_PIXELS, 5 * TILE_PIXELS
_FORWARD_PLANES = 6
# Backward: the incoming gradient, and the part of the output that is still behind (weighted by that gradient).
_G_RED, _G_GREEN, _G_BLUE, _BEHIND = 3 * TILE_PIXELS, 4 * TILE_PIXELS, 5 * TILE_PIXELS, 6 * TILE_PIXELS
_BACKWARD_PLANES = 7


@inlined
def _exp2(power):
    """2^power for power in [-8, 0], to 2.4e-6 relative: a polynomial for 2^(power/8), squared three times.

    Multiplications only, so it vectorises on any machine, unlike a call to exp2.
    """
    root = np.float32(2.8649540899970535e-08) * power + np.float32(2.243313354532018e-06)
    root = root * power + np.float32(0.00010796820829574779)
    root = root * power + np.float32(0.003752690459822154)
    root = root * power + np.float32(0.08664278158234295)
    root = root * power + np.float32(0.9999999250690774)
    root = root * root
    root = root * root
    return root * root


@inlined
def _rows_touched(record, left, top, num_rows):
    """First and last row of the tile that the ellipse alpha = 1/255 touches; last < first where it misses the tile.

    Exact over the strip of pixel centres: the lower and upper bound of the ellipse lie at its tips, or, where a tip is
    outside the strip, at the strip's edge.
    """
    strip_left = left + _HALF - record[REC_X]
    strip_right = strip_left + np.float32(TILE_WIDTH - 1)
    tip, slope, shrink = record[REC_TIP], record[REC_SLOPE], record[REC_SHRINK]
    x_low = min(max(-tip, strip_left), strip_right)
    x_high = min(max(tip, strip_left), strip_right)
    height2_low = record[REC_HEIGHT2] - shrink * x_low * x_low
    height2_high = record[REC_HEIGHT2] - shrink * x_high * x_high
    centre = record[REC_Y] - top
    low = centre + slope * x_low - math.sqrt(max(height2_low, _F0)) - np.float32(0.501)
    high = centre + slope * x_high + math.sqrt(max(height2_high, _F0)) - np.float32(0.499)
    # Limited before the casts: an int cast of a huge float is undefined.
    limit = np.float32(TILE_HEIGHT)
    first = np.int32(math.ceil(min(max(low, _F0), limit)))
    last = np.int32(math.floor(min(max(high, -_F1), limit)))
    last = min(last, np.int32(num_rows - 1))
    if max(height2_low, height2_high) < _F0:
        last = np.int32(-1)
    return first, last


@inlined
def _write_pixel_centres(state, left, top):
    for i in range(TILE_PIXELS):
        state[_CENTRE_X + i] = left + np.float32(i % TILE_WIDTH) + _HALF
        state[_CENTRE_Y + i] = top + np.float32(i // TILE_WIDTH) + _HALF


@kernel
def blend_tiles(first, last, records, entry_splats, tile_starts, tiles_x, image, alpha, entries_used, entry_rows):
    """Render tiles `first` to `last` into `image` (over black) and `alpha`.

    Leaves for the backward pass how many entries of each tile were looked at and which rows each of them touched.
    """
    height, width = alpha.shape
    for tile in range(first, last):
        tile_row = tile // tiles_x
        tile_column = tile - tile_row * tiles_x
        left, top = np.float32(tile_column * TILE_WIDTH), np.float32(tile_row * TILE_HEIGHT)
        num_rows = min(TILE_HEIGHT, height - tile_row * TILE_HEIGHT)
        state = np.zeros(_FORWARD_PLANES * TILE_PIXELS, np.float32)
        _write_pixel_centres(state, left, top)
        for i in range(TILE_PIXELS):
            state[_PASSING + i] = _F1

        entry, end = tile_starts[tile], tile_starts[tile + 1]
        while entry < end:
            most_passing = _F0
            for i in range(num_rows * TILE_WIDTH):
                most_passing = max(most_passing, state[_PASSING + i])
            if most_passing <= TRANSMITTANCE_MIN:
                break
            group_end = min(entry + _GROUP, end)
            for e in range(entry, group_end):
                entry_rows[e, 0], entry_rows[e, 1] = _rows_touched(records[entry_splats[e]], left, top, num_rows)
            for e in range(entry, group_end):
                row_first, row_last = np.int32(entry_rows[e, 0]), np.int32(entry_rows[e, 1])
                if row_last >= row_first:
                    _blend_splat(state, records[entry_splats[e]], row_first, row_last)
            entry = group_end
        entries_used[tile] = entry

        for row in range(num_rows):
            y = tile_row * TILE_HEIGHT + row
            for column in range(min(TILE_WIDTH, width - tile_column * TILE_WIDTH)):
                i, x = row * TILE_WIDTH + column, tile_column * TILE_WIDTH + column
                image[y, x, 0], image[y, x, 1], image[y, x, 2] = state[_RED + i], state[_GREEN + i], state[_BLUE + i]
                alpha[y, x] = _F1 - abs(state[_PASSING + i])


@inlined
def _blend_splat(state, record, row_first, row_last):
    """Put one splat behind what the tile holds already.

    A pixel that would let less than the minimum through is finished: its transmittance is kept with a negative sign.
    """
    centre_x, centre_y, xx, xy, yy = record[REC_X], record[REC_Y], record[REC_XX], record[REC_XY], record[REC_YY]
    log_opacity, red, green, blue = record[REC_LOG_OPACITY], record[REC_RED], record[REC_GREEN], record[REC_BLUE]
    # Unsigned bounds: numba then needs no test for negative indices.
    for i in range(np.uint32(row_first * TILE_WIDTH), np.uint32((row_last + 1) * TILE_WIDTH)):
        dx, dy = centre_x - state[_CENTRE_X + i], centre_y - state[_CENTRE_Y + i]
        power = dx * (xx * dx + xy * dy) + (yy * dy * dy + log_opacity)
        splat_alpha = min(_exp2(max(power, _POWER_MIN)), ALPHA_MAX)
        passing = state[_PASSING + i]
        remaining = passing - passing * splat_alpha
        seen, goes_on = power >= ALPHA_MIN_LOG2, remaining > TRANSMITTANCE_MIN
        weight = passing * splat_alpha if (seen & goes_on) else _F0
        state[_RED + i] += weight * red
        state[_GREEN + i] += weight * green
        state[_BLUE + i] += weight * blue
        after = remaining if goes_on else -abs(passing)
        state[_PASSING + i] = after if seen else passing


@kernel
def blend_tiles_backward(
    first, last, records, entry_splats, entry_slots, tile_starts, tiles_x,
    image, alpha, entries_used, entry_rows, g_image, g_alpha, moments,
):  # fmt: skip
    """Write into each entry's slot its moments of alpha dL/dalpha, for tiles `first` to `last`.

    Runs front to back like the forward pass and repeats its decisions exactly. What lies behind a splat is the whole
    output minus what was passed so far, so nothing needs to be stored per pixel and splat.
    """
    height, width = alpha.shape
    for tile in range(first, last):
        tile_row = tile // tiles_x
        tile_column = tile - tile_row * tiles_x
        left, top = np.float32(tile_column * TILE_WIDTH), np.float32(tile_row * TILE_HEIGHT)
        num_rows = min(TILE_HEIGHT, height - tile_row * TILE_HEIGHT)
        state = np.zeros(_BACKWARD_PLANES * TILE_PIXELS, np.float32)
        _write_pixel_centres(state, left, top)
        for row in range(num_rows):
            y = tile_row * TILE_HEIGHT + row
            for column in range(min(TILE_WIDTH, width - tile_column * TILE_WIDTH)):
                i, x = row * TILE_WIDTH + column, tile_column * TILE_WIDTH + column
                red, green, blue = g_image[y, x, 0], g_image[y, x, 1], g_image[y, x, 2]
                state[_PASSING + i] = _F1
                state[_G_RED + i], state[_G_GREEN + i], state[_G_BLUE + i] = red, green, blue
                state[_BEHIND + i] = (
                    red * image[y, x, 0] + green * image[y, x, 1] + blue * image[y, x, 2] - g_alpha[y, x] * (_F1 - alpha[y, x])
                )

        for e in range(tile_starts[tile], tile_starts[tile + 1]):
            slot = entry_slots[e]
            if e >= entries_used[tile]:
                for k in range(MOMENTS):
                    moments[slot, k] = _F0
                continue
            row_first, row_last = np.int32(entry_rows[e, 0]), np.int32(entry_rows[e, 1])
            _blend_splat_backward(state, records[entry_splats[e]], row_first, row_last, moments[slot])


@inlined
def _blend_splat_backward(state, record, row_first, row_last, slot_moments):
    centre_x, centre_y, xx, xy, yy = record[REC_X], record[REC_Y], record[REC_XX], record[REC_XY], record[REC_YY]
    log_opacity, red, green, blue = record[REC_LOG_OPACITY], record[REC_RED], record[REC_GREEN], record[REC_BLUE]
    m, mx, my, mxx, mxy, myy, sum_red, sum_green, sum_blue = _F0, _F0, _F0, _F0, _F0, _F0, _F0, _F0, _F0
    if row_last >= row_first:
        for i in range(np.uint32(row_first * TILE_WIDTH), np.uint32((row_last + 1) * TILE_WIDTH)):
            dx, dy = centre_x - state[_CENTRE_X + i], centre_y - state[_CENTRE_Y + i]
            power = dx * (xx * dx + xy * dy) + (yy * dy * dy + log_opacity)
            free_alpha = _exp2(max(power, _POWER_MIN))
            splat_alpha = min(free_alpha, ALPHA_MAX)
            passing = state[_PASSING + i]
            remaining = passing - passing * splat_alpha
            seen, goes_on = power >= ALPHA_MIN_LOG2, remaining > TRANSMITTANCE_MIN
            weight = passing * splat_alpha if (seen & goes_on) else _F0
            g_red, g_green, g_blue = state[_G_RED + i], state[_G_GREEN + i], state[_G_BLUE + i]
            color_gradient = red * g_red + green * g_green + blue * g_blue
            sum_red += weight * g_red
            sum_green += weight * g_green
            sum_blue += weight * g_blue
            behind = state[_BEHIND + i] - weight * color_gradient
            state[_BEHIND + i] = behind
            # out = ... + passing (alpha color + (1 - alpha) rest), and behind = passing (1 - alpha) rest, hence:
            g_alpha = passing * color_gradient - behind / (_F1 - splat_alpha)
            g_log = free_alpha * g_alpha if (seen & goes_on & (free_alpha <= ALPHA_MAX)) else _F0
            after = remaining if goes_on else _F0
            state[_PASSING + i] = after if seen else passing
            g_dx, g_dy = g_log * dx, g_log * dy
            m += g_log
            mx += g_dx
            my += g_dy
            mxx += g_dx * dx
            mxy += g_dx * dy
            myy += g_dy * dy
    slot_moments[0], slot_moments[1], slot_moments[2] = m, mx, my
    slot_moments[3], slot_moments[4], slot_moments[5] = mxx, mxy, myy
    slot_moments[6], slot_moments[7], slot_moments[8] = sum_red, sum_green, sum_blue
