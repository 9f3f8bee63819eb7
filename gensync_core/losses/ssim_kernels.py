"""CPU kernels of the fused L1 + SSIM loss: pack, compare, and the gradient, worked out by hand.

An image is [H, W, C]. Packed, a row of it is one plane of floats, channels interleaved as they lie in memory: a tap of the
horizontal window is then a shift by C. Beyond the border both images count as 0, as in 3DGS. Four planes are kept,

    x, y, x x + y y, x y    [H + 2 RADIUS + 1, 4, stride]

with RADIUS rows above and RADIUS + 1 below, RADIUS pixels on either side (`kernel_layout.packed_shape`), all of them 0.
With the window sums m1 = E[x], m2 = E[y], e = E[x x + y y], e12 = E[x y], per pixel

    S = (2 m1 m2 + C1)(2 s12 + C2) / ((m1^2 + m2^2 + C1)(s + C2)),  s = e - m1^2 - m2^2, s12 = e12 - m1 m2,

so dS/dx of a pixel is the same window over dS/dm1 + 2 x dS/de + y dS/de12 (the window is symmetric). These three planes
have the layout of the packed images.

Items are pairs of rows, because two windows one row apart share ten of their eleven rows: half the loads.
"""

import numpy as np

from gensync_core.gaussians.backends.cpu_runtime import inlined, kernel, vector_kernel
from gensync_core.gaussians.backends.cpu_simd import load8, ramp8, select, store, sum_of_lanes, zeros8
from gensync_core.losses.kernel_layout import LANES, RADIUS, WINDOW_TAPS

_F0, _F1, _F2 = np.float32(0), np.float32(1), np.float32(2)
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)

# Scalars, not an array: constants in the code need no loads. The window is symmetric, so six do.
_K0, _K1, _K2, _K3, _K4, _K5 = (np.float32(tap) for tap in WINDOW_TAPS[: RADIUS + 1])


@inlined
def _window_sum(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10):
    return _K0 * (a0 + a10) + _K1 * (a1 + a9) + _K2 * (a2 + a8) + _K3 * (a3 + a7) + _K4 * (a4 + a6) + _K5 * a5


@inlined
def _blur_row(planes, at, c):
    """Horizontal window of eight floats; `at`: flat index of its first tap."""
    return _window_sum(
        load8(planes, at), load8(planes, at + c), load8(planes, at + 2 * c), load8(planes, at + 3 * c),
        load8(planes, at + 4 * c), load8(planes, at + 5 * c), load8(planes, at + 6 * c), load8(planes, at + 7 * c),
        load8(planes, at + 8 * c), load8(planes, at + 9 * c), load8(planes, at + 10 * c),
    )  # fmt: skip


@inlined
def blur_columns(planes, y, blurred):
    """Vertical windows centred on rows y and y + 1 of the image, into `blurred` [2, planes, stride]."""
    row = planes.shape[1] * planes.shape[2]
    at = y * row
    for to in range(0, row, LANES):
        a0, a1, a2, a3 = load8(planes, at), load8(planes, at + row), load8(planes, at + 2 * row), load8(planes, at + 3 * row)
        a4, a5, a6 = load8(planes, at + 4 * row), load8(planes, at + 5 * row), load8(planes, at + 6 * row)
        a7, a8, a9 = load8(planes, at + 7 * row), load8(planes, at + 8 * row), load8(planes, at + 9 * row)
        a10, a11 = load8(planes, at + 10 * row), load8(planes, at + 11 * row)
        store(blurred, to, _window_sum(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10))
        store(blurred, to + row, _window_sum(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11))
        at += LANES


@inlined
def finish_row(planes, start, end):
    """Fill the planes of products and the padding of a packed row that has x and y; returns the sum of |x - y|."""
    # Slices and one plain index: for i + start numba would test whether it is negative, and LLVM would not vectorise.
    x, y, squares, product = planes[0, start:end], planes[1, start:end], planes[2, start:end], planes[3, start:end]
    total = _F0
    for i in range(x.shape[0]):
        u, v = x[i], y[i]
        squares[i] = u * u + v * v
        product[i] = u * v
        total += abs(u - v)
    planes[:, :start] = _F0
    planes[:, end:] = _F0
    return total


@kernel
def pack_rows(first, last, image, target, packed, row_sums):
    """Pass 1: pack x and y, both [H, W, C]; `row_sums` [H, 2] gets the sum of |x - y| in its second column."""
    height, width, channels = image.shape
    start = RADIUS * channels
    end = start + width * channels
    for row in range(first, last):
        y = row - RADIUS
        if y < 0 or y >= height:
            packed[row] = _F0
            continue
        packed[row, 0, start:end] = image[y].reshape(-1)
        packed[row, 1, start:end] = target[y].reshape(-1)
        row_sums[y, 1] = finish_row(packed[row], start, end)


@vector_kernel
def compare_rows(first, last, width, channels, packed, derivatives, row_sums):
    """Pass 2: sums of SSIM a row, and its derivatives by the window sums.

    Args:
        first: first pair of rows.
        last: pair after the last.
        width: of the image.
        channels: of the image.
        packed: from pass 1.
        derivatives: gets dS/dm1, dS/de, dS/de12, packed.
        row_sums: gets the sums in its first column [H, 2].
    """
    height, stride = row_sums.shape[0], packed.shape[2]
    start, end = RADIUS * channels, (RADIUS + width) * channels
    blurred, sums = np.empty((2, 4, stride), np.float32), np.empty((4, stride), np.float32)
    for pair in range(first, last):
        blur_columns(packed, 2 * pair, blurred)
        for y in range(2 * pair, min(2 * pair + 2, height)):
            total = zeros8()
            source, to = 4 * stride * (y - 2 * pair), 3 * stride * (y + RADIUS) + start
            # A loop of its own: the windows and what follows are long chains, together too long for the processor to overlap.
            for at in range(0, 4 * stride, stride):
                for x in range(at, at + width * channels, LANES):
                    store(sums, x, _blur_row(blurred, source + x, channels))
            for x in range(0, width * channels, LANES):
                m1, m2 = load8(sums, x), load8(sums, stride + x)
                squares, product = load8(sums, 2 * stride + x), load8(sums, 3 * stride + x)
                means, mean_product = m1 * m1 + m2 * m2, m1 * m2
                light, structure = _F2 * mean_product + _C1, _F2 * (product - mean_product) + _C2
                light_below, structure_below = means + _C1, squares - means + _C2
                inverse = _F1 / (light_below * structure_below)
                inverse_light, inverse_structure = inverse * structure_below, inverse * light_below
                similarity = light * structure * inverse
                total = total + select(ramp8() < np.float32(width * channels - x), similarity, _F0)
                by_squares, by_product = -similarity * inverse_structure, _F2 * light * inverse
                # s and s12 hold m1 too, hence the last two terms.
                by_mean = _F2 * (m2 * structure * inverse - m1 * similarity * inverse_light - m1 * by_squares) - m2 * by_product
                store(derivatives, to + x, by_mean)
                store(derivatives, to + stride + x, by_squares)
                store(derivatives, to + 2 * stride + x, by_product)
            row_sums[y, 0] = sum_of_lanes(total)
            derivatives[y + RADIUS, :, :start] = _F0
            derivatives[y + RADIUS, :, end:] = _F0
            if y == 0:
                derivatives[:RADIUS] = _F0
            if y == height - 1:
                derivatives[RADIUS + height :] = _F0


@inlined
def row_gradient(packed, y, blurred, width, channels, ssim_factor, l1_factor, gradient):
    """ssim_factor * dS/dx summed over all windows + l1_factor * sign(x - y) of row y, into `gradient` [>= W C].

    `blurred`: where the row begins in the vertically blurred derivatives [3, stride].
    """
    stride = packed.shape[2]
    at = 4 * stride * (y + RADIUS) + RADIUS * channels
    source = 3 * stride * (y & 1)
    for x in range(0, width * channels, LANES):
        u, v = load8(packed, at + x), load8(packed, at + stride + x)
        by_mean, by_squares = _blur_row(blurred, source + x, channels), _blur_row(blurred, source + stride + x, channels)
        by_product = _blur_row(blurred, source + 2 * stride + x, channels)
        similarity = by_mean + _F2 * u * by_squares + v * by_product
        sign = select(u > v, l1_factor, select(u < v, -l1_factor, zeros8()))
        store(gradient, x, ssim_factor * similarity + sign)


@vector_kernel
def gradient_rows(first, last, packed, derivatives, ssim_factor, l1_factor, gradient):
    """Pass 3, over pairs of rows: `gradient` [H, W, C] of ssim_factor * sum(S) + l1_factor * sum(|x - y|)."""
    height, width, channels = gradient.shape
    blurred = np.empty((2, 3, derivatives.shape[2]), np.float32)
    row = np.empty(derivatives.shape[2], np.float32)
    flat = gradient.reshape(height, -1)
    for pair in range(first, last):
        blur_columns(derivatives, 2 * pair, blurred)
        for y in range(2 * pair, min(2 * pair + 2, height)):
            row_gradient(packed, y, blurred, width, channels, ssim_factor, l1_factor, row)
            flat[y] = row[: width * channels]
