"""CPU kernels of the layer loss: compositing before the passes of `ssim_kernels`, and the gradient through it after them.

A pixel is x = image + (1 - alpha) b before the true y, where b is the colour behind inside the mask and y elsewhere. So
dx/dimage = 1 and dx/dalpha = -b. RGB only; b takes no memory, both passes work it out.
"""

import numpy as np

from gensync_core.gaussians.backends.cpu_runtime import inlined, kernel, vector_kernel
from gensync_core.losses.kernel_layout import RADIUS
from gensync_core.losses.ssim_kernels import blur_columns, finish_row, row_gradient

_F0, _F1 = np.float32(0), np.float32(1)
_UNIT = np.float32(1 / 255)


@inlined
def _read_mask(labels, covered, mask):
    for p in range(mask.shape[0]):
        mask[p] = covered[labels[p]]


@kernel
def compose_rows(first, last, image, alpha, frame, labels, covered, behind, box, box_weight, packed, row_sums):
    """Pass 1: composite and pack a padded row; see `pack_rows`.

    Args:
        first: first padded row.
        last: row after the last.
        image: premultiplied [H, W, 3].
        alpha: [H, W].
        frame: true picture, uint8 [H, W, 3].
        labels: uint8 [H, W].
        covered: mask by label, 0 or 1 [256].
        behind: colour [3].
        box: x0, y0, x1, y1 in px.
        box_weight: extra weight of |x - y| inside the box.
        packed: gets the planes.
        row_sums: gets the sums of weighted |x - y| and of |alpha - mask| in columns 1 and 2 of [H, 3].
    """
    height, width = alpha.shape
    start, end = RADIUS * 3, (RADIUS + width) * 3
    x0, y0, x1, y1 = box
    red, green, blue = behind[0], behind[1], behind[2]
    mask = np.empty(width, np.float32)
    for row in range(first, last):
        y = row - RADIUS
        if y < 0 or y >= height:
            packed[row] = _F0
            continue
        _read_mask(labels[y], covered, mask)
        seen, true = packed[row, 0, start:end].reshape(width, 3), packed[row, 1, start:end].reshape(width, 3)
        drawn, alphas, bytes_ = image[y], alpha[y], frame[y]
        alpha_error = _F0
        for p in range(width):
            r, g, b = bytes_[p, 0] * _UNIT, bytes_[p, 1] * _UNIT, bytes_[p, 2] * _UNIT
            true[p, 0], true[p, 1], true[p, 2] = r, g, b
            m, through = mask[p], _F1 - alphas[p]
            seen[p, 0] = drawn[p, 0] + through * (r + m * (red - r))
            seen[p, 1] = drawn[p, 1] + through * (g + m * (green - g))
            seen[p, 2] = drawn[p, 2] + through * (b + m * (blue - b))
            alpha_error += abs(alphas[p] - m)
        total = finish_row(packed[row], start, end)
        if y0 <= y < y1:
            total += box_weight * _difference(seen[x0:x1], true[x0:x1])
        row_sums[y, 1], row_sums[y, 2] = total, alpha_error


@inlined
def _difference(seen, true):
    x, y = seen.reshape(-1), true.reshape(-1)
    total = _F0
    for i in range(x.shape[0]):
        total += abs(x[i] - y[i])
    return total


@vector_kernel
def layer_gradient_rows(
    first, last, alpha, labels, covered, behind, box, packed, derivatives, factors, image_gradient, alpha_gradient
):
    """Pass 3, over pairs of rows: gradients to image [H, W, 3] and alpha [H, W].

    `factors`: of the sums of S, of |x - y|, of |x - y| inside the box once more, and of |alpha - mask|.
    """
    height, width = alpha.shape
    x0, y0, x1, y1 = box
    ssim_factor, l1_factor, box_factor, alpha_factor = factors
    red, green, blue = behind[0], behind[1], behind[2]
    stride, start, end = derivatives.shape[2], RADIUS * 3, (RADIUS + width) * 3
    blurred = np.empty((2, 3, stride), np.float32)
    buffer, mask = np.empty(stride, np.float32), np.empty(width, np.float32)
    gradient, flat_gradient = buffer[: width * 3].reshape(width, 3), image_gradient.reshape(height, -1)
    for pair in range(first, last):
        blur_columns(derivatives, 2 * pair, blurred)
        for y in range(2 * pair, min(2 * pair + 2, height)):
            row_gradient(packed, y, blurred, width, 3, ssim_factor, l1_factor, buffer)
            seen = packed[y + RADIUS, 0, start:end].reshape(width, 3)
            true = packed[y + RADIUS, 1, start:end].reshape(width, 3)
            if y0 <= y < y1:
                _add_signs(seen[x0:x1], true[x0:x1], box_factor, gradient[x0:x1])
            flat_gradient[y] = buffer[: width * 3]
            _read_mask(labels[y], covered, mask)
            alphas, by_alpha = alpha[y], alpha_gradient[y]
            for p in range(width):
                a, m = alphas[p], mask[p]
                by_alpha[p] = alpha_factor if a > m else (-alpha_factor if a < m else _F0)
            for p in range(width):
                m, r, g, b = mask[p], true[p, 0], true[p, 1], true[p, 2]
                by_red, by_green = gradient[p, 0] * (r + m * (red - r)), gradient[p, 1] * (g + m * (green - g))
                by_alpha[p] -= by_red + by_green + gradient[p, 2] * (b + m * (blue - b))


@inlined
def _add_signs(seen, true, factor, gradient):
    x, y, out = seen.reshape(-1), true.reshape(-1), gradient.reshape(-1)
    for i in range(x.shape[0]):
        out[i] += factor if x[i] > y[i] else (-factor if x[i] < y[i] else _F0)
