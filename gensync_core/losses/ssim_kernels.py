"""CPU kernels of the fused L1 + SSIM loss: three passes over image rows, the gradient worked out by hand.

Images come as [H, W*C], channels interleaved as they lie in memory: a tap of the horizontal window is then a shift by C
and every inner loop runs over contiguous floats. Beyond the border both images count as 0, as in 3DGS.

With the window sums m1 = E[x], m2 = E[y], e11 = E[x x], e22 = E[y y], e12 = E[x y], per pixel

    S = (2 m1 m2 + C1)(2 s12 + C2) / ((m1^2 + m2^2 + C1)(s1 + s2 + C2)),  s1 = e11 - m1^2, s2 = e22 - m2^2, s12 = e12 - m1 m2,

so dS/dx of a pixel is the same window over dS/dm1 + 2 x dS/de11 + y dS/de12 (the window is symmetric).
"""

import numpy as np

from gensync_core.gaussians.backends.cpu_runtime import inlined, kernel

WINDOW, RADIUS, SIGMA = 11, 5, 1.5
_F0, _F1, _F2 = np.float32(0), np.float32(1), np.float32(2)
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)

_taps = np.exp(-((np.arange(WINDOW) - RADIUS) ** 2) / (2 * SIGMA**2))
WINDOW_TAPS = _taps / _taps.sum()
# Scalars, not an array: constants in the code need no loads. The window is symmetric, so six do.
_K0, _K1, _K2, _K3, _K4, _K5 = (np.float32(tap) for tap in WINDOW_TAPS[: RADIUS + 1])


@inlined
def _window_sum(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10):
    return _K0 * (a0 + a10) + _K1 * (a1 + a9) + _K2 * (a2 + a8) + _K3 * (a3 + a7) + _K4 * (a4 + a6) + _K5 * a5


@inlined
def _blur_row(padded, channels, out):
    """Horizontal window over one row that has RADIUS pixels of padding at both ends."""
    # Shifted views and one plain index: an index x + 3 * c hides from LLVM that the taps are contiguous.
    c = channels
    t0, t1, t2, t3, t4, t5 = padded, padded[c:], padded[2 * c :], padded[3 * c :], padded[4 * c :], padded[5 * c :]
    t6, t7, t8, t9, t10 = padded[6 * c :], padded[7 * c :], padded[8 * c :], padded[9 * c :], padded[10 * c :]
    for x in range(out.shape[0]):
        out[x] = _window_sum(t0[x], t1[x], t2[x], t3[x], t4[x], t5[x], t6[x], t7[x], t8[x], t9[x], t10[x])


@inlined
def _blur_column(planes, y, plane, out):
    """Vertical window centred on row y of an image whose rows are padded by RADIUS above and below."""
    r0, r1, r2, r3 = planes[y, plane], planes[y + 1, plane], planes[y + 2, plane], planes[y + 3, plane]
    r4, r5, r6, r7 = planes[y + 4, plane], planes[y + 5, plane], planes[y + 6, plane], planes[y + 7, plane]
    r8, r9, r10 = planes[y + 8, plane], planes[y + 9, plane], planes[y + 10, plane]
    for x in range(out.shape[0]):
        out[x] = _window_sum(r0[x], r1[x], r2[x], r3[x], r4[x], r5[x], r6[x], r7[x], r8[x], r9[x], r10[x])


@kernel
def blur_rows(first, last, image, target, channels, blurred):
    """Pass 1: horizontal window over x, y, x x, y y, x y into `blurred` [H + 2 RADIUS, 5, W C]; padding rows get 0."""
    height, width = image.shape
    pad = RADIUS * channels
    padded = np.zeros((5, width + 2 * pad), np.float32)
    inner0, inner1, inner2 = padded[0][pad : pad + width], padded[1][pad : pad + width], padded[2][pad : pad + width]
    inner3, inner4 = padded[3][pad : pad + width], padded[4][pad : pad + width]
    for row in range(first, last):
        y = row - RADIUS
        if y < 0 or y >= height:
            blurred[row] = _F0
            continue
        for x in range(width):
            u, v = image[y, x], target[y, x]
            inner0[x] = u
            inner1[x] = v
            inner2[x] = u * u
            inner3[x] = v * v
            inner4[x] = u * v
        for plane in range(5):
            _blur_row(padded[plane], channels, blurred[row, plane])


@kernel
def compare_rows(first, last, image, target, weights, channels, blurred, derivatives, row_sums):
    """Pass 2: vertical window, sums of SSIM and of weighted |x - y| per row, and the derivatives of S.

    Args:
        first: first row.
        last: row after the last.
        image: x.
        target: y.
        weights: of |x - y|, [H, W C] like the images.
        channels: interleaved in a row.
        blurred: from pass 1.
        derivatives: gets dS/dm1, dS/de11, dS/de12; [H + 2 RADIUS, 3, W C + 2 RADIUS C], its padding stays 0.
        row_sums: gets [H, 2].
    """
    width = image.shape[1]
    pad = RADIUS * channels
    sums = np.empty((5, width), np.float32)
    for y in range(first, last):
        for plane in range(5):
            _blur_column(blurred, y, plane, sums[plane])
        mean1, mean2, square1, square2, product = sums[0], sums[1], sums[2], sums[3], sums[4]
        # Slices rather than an index x + pad, for which numba would test whether it is negative.
        by_mean = derivatives[y + RADIUS, 0][pad : pad + width]
        by_square = derivatives[y + RADIUS, 1][pad : pad + width]
        by_product = derivatives[y + RADIUS, 2][pad : pad + width]
        total = _F0
        for x in range(width):
            m1, m2 = mean1[x], mean2[x]
            variances, covariance = square1[x] - m1 * m1 + square2[x] - m2 * m2, product[x] - m1 * m2
            light, structure = _F2 * m1 * m2 + _C1, _F2 * covariance + _C2
            inverse_light, inverse_structure = _F1 / (m1 * m1 + m2 * m2 + _C1), _F1 / (variances + _C2)
            similarity = light * structure * inverse_light * inverse_structure
            total += similarity
            d_square = -similarity * inverse_structure
            d_product = _F2 * light * inverse_light * inverse_structure
            by_square[x] = d_square
            by_product[x] = d_product
            # s1 and s12 hold m1 too, hence the last two terms.
            by_mean[x] = (
                _F2 * m2 * structure * inverse_light * inverse_structure
                - _F2 * m1 * similarity * inverse_light
                - _F2 * m1 * d_square
                - m2 * d_product
            )
        row_sums[y, 0] = total
        row_sums[y, 1] = _weighted_difference(image[y], target[y], weights[y])


@inlined
def _weighted_difference(image_row, target_row, weight_row):
    total = _F0
    for x in range(image_row.shape[0]):
        total += weight_row[x] * abs(image_row[x] - target_row[x])
    return total


@kernel
def gradient_rows(first, last, image, target, weights, channels, derivatives, ssim_factor, l1_factor, gradient):
    """Pass 3: `gradient` = ssim_factor * dS/dx summed over all windows + l1_factor * weight * sign(x - y)."""
    width = image.shape[1]
    column = np.empty((3, derivatives.shape[2]), np.float32)
    by_mean, by_square, by_product = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(first, last):
        for plane in range(3):
            _blur_column(derivatives, y, plane, column[plane])
        _blur_row(column[0], channels, by_mean)
        _blur_row(column[1], channels, by_square)
        _blur_row(column[2], channels, by_product)
        for x in range(width):
            u, v = image[y, x], target[y, x]
            sign = _F1 if u > v else (-_F1 if u < v else _F0)
            similarity = by_mean[x] + _F2 * u * by_square[x] + v * by_product[x]
            gradient[y, x] = ssim_factor * similarity + l1_factor * weights[y, x] * sign
