"""CPU kernels of the head field: attention over a frame's tokens and decoder, all layers of a block of points in cache.

A field of one frame, with all that does not depend on the point folded into its weights (see `field_folding`):

    w   = softmax(x Q + q)         x: features of a point [F]; w: 8 lanes for each head of attention, L in all
    h1  = leaky(x W1 + b1 + w V)   [H]
    h2  = leaky(h1 W2 + b2)        [H]
    out = h2 W3 + b3               [O]; its last column becomes the audio attention, the mean over heads of w in lane 0

Q, q, V, W2 and b2 are the frame's own. Matrices are stored inputs x outputs, row by row. L, H, O and the columns that hold
the features are multiples of 16, F and the points of a frame multiples of 4.
A work item is one chunk of the points of one frame and owns what it writes: its share of the weights' gradients is summed
afterwards, in order, so that results do not depend on the number of threads.
"""

import numpy as np

from gensync_core.gaussians.backends.cpu_runtime import inlined, vector_kernel
from gensync_core.gaussians.backends.cpu_simd import exp2, load8, load16, most, select, store, sum_of_lanes
from gensync_core.model.kernel_layout import CHUNK, COLUMNS, LANES, ROWS, SLOPE

_BLOCK = 64
"""Points that go through all layers together; twice as many no longer fit the first cache in `_add_outer`."""
_F0, _F1, _SLOPE = np.float32(0), np.float32(1), np.float32(SLOPE)
_LOG2_E, _LOWEST = np.float32(np.log2(np.e)), np.float32(-120)


@vector_kernel
def _multiply(left, skip, inner, right, start, start_step, out, out_skip):
    """`out` = start + left @ right, tile by tile.

    Args:
        left: [P, >= skip + inner]; columns from `skip` on.
        skip: first column.
        inner: number of columns.
        right: [inner, width].
        start: what the sums begin with, flat: row r of `out` from r * start_step on (0: a bias; or `out` itself).
        start_step: see `start`.
        out: [P, >= out_skip + width]; columns from `out_skip` on.
        out_skip: first column.
    """
    width, out_width = right.shape[1], out.shape[1]
    for column in range(0, width, COLUMNS):
        for row in range(0, left.shape[0], ROWS):
            at = row * start_step + column
            sum0, sum1 = load16(start, at), load16(start, at + start_step)
            sum2, sum3 = load16(start, at + 2 * start_step), load16(start, at + 3 * start_step)
            at = column
            for k in range(inner):
                weights = load16(right, at)
                at += width
                sum0 = sum0 + weights * left[row, skip + k]
                sum1 = sum1 + weights * left[row + 1, skip + k]
                sum2 = sum2 + weights * left[row + 2, skip + k]
                sum3 = sum3 + weights * left[row + 3, skip + k]
            at = row * out_width + out_skip + column
            store(out, at, sum0)
            store(out, at + out_width, sum1)
            store(out, at + 2 * out_width, sum2)
            store(out, at + 3 * out_width, sum3)


@vector_kernel
def _add_outer(left, skip, right, right_skip, out):
    """`out` [M, width] += left[:, skip : skip + M].T @ right[:, right_skip : right_skip + width]; M a multiple of 4."""
    inner, width, right_width = out.shape[0], out.shape[1], right.shape[1]
    for i in range(0, inner, ROWS):
        k = skip + i
        for column in range(0, width, COLUMNS):
            start = i * width + column
            sum0, sum1 = load16(out, start), load16(out, start + width)
            sum2, sum3 = load16(out, start + 2 * width), load16(out, start + 3 * width)
            at = right_skip + column
            for row in range(left.shape[0]):
                gradient = load16(right, at)
                at += right_width
                sum0 = sum0 + gradient * left[row, k]
                sum1 = sum1 + gradient * left[row, k + 1]
                sum2 = sum2 + gradient * left[row, k + 2]
                sum3 = sum3 + gradient * left[row, k + 3]
            store(out, start, sum0)
            store(out, start + width, sum1)
            store(out, start + 2 * width, sum2)
            store(out, start + 3 * width, sum3)


@vector_kernel
def _activate(values, skip):
    """Leaky ReLU of the columns from `skip` on."""
    width = values.shape[1]
    for row in range(values.shape[0]):
        for at in range(row * width + skip, (row + 1) * width, COLUMNS):
            value = load16(values, at)
            store(values, at, most(value, value * _SLOPE))


@vector_kernel
def _pass_activation(gradient, gradient_skip, values, skip):
    """Multiply by the slope of the leaky ReLU that gave `values` (whose sign is that of its argument)."""
    width, gradient_width = values.shape[1], gradient.shape[1]
    for row in range(values.shape[0]):
        at = row * gradient_width + gradient_skip
        for source in range(row * width + skip, (row + 1) * width, COLUMNS):
            g = load16(gradient, at)
            store(gradient, at, select(load16(values, source) > _F0, g, g * _SLOPE))
            at += COLUMNS


@inlined
def _largest(values, row, first):
    largest = values[row, first]
    for lane in range(first + 1, first + LANES):
        largest = max(largest, values[row, lane])
    return largest


@vector_kernel
def _attend(values, lanes):
    """Softmax of each head's lanes, in place."""
    width = values.shape[1]
    for row in range(values.shape[0]):
        for first in range(0, lanes, LANES):
            at = row * width + first
            powers = exp2(most((load8(values, at) - _largest(values, row, first)) * _LOG2_E, _LOWEST))
            store(values, at, powers * (_F1 / sum_of_lanes(powers)))


@vector_kernel
def _pass_softmax(gradient, values, lanes):
    """The gradient with respect to the weights of attention -> to the logits, in place; `values` holds the weights."""
    width, gradient_width = values.shape[1], gradient.shape[1]
    for row in range(values.shape[0]):
        for first in range(0, lanes, LANES):
            at = row * gradient_width + first
            weights, g = load8(values, row * width + first), load8(gradient, at)
            store(gradient, at, weights * (g - sum_of_lanes(weights * g)))


@vector_kernel
def _add_rows(values, skip, out):
    """`out` [1, width] += sum of the rows of the columns from `skip` on."""
    for column in range(0, out.shape[1], COLUMNS):
        total = load16(out, column)
        for row in range(values.shape[0]):
            total = total + load16(values, row * values.shape[1] + skip + column)
        store(out, column, total)


@vector_kernel
def decode_chunks(first, last, features, base, Q, q, W1, b1, V, W2, b2, W3, b3, hidden1, hidden2, out):
    """Forward pass of the chunks `first` to `last`, chunk after chunk of frame after frame.

    Args:
        first: first chunk.
        last: chunk after the last.
        features: [1 or B, N, >= F]; for all frames or one each.
        base: x W1 + b1 [N, H] where all frames share their points; else without rows, and worked out here.
        Q: of each frame [B, F, L].
        q: of each frame [B, L].
        W1: [F, H].
        b1: [H].
        V: of each frame [B, L, H].
        W2: of each frame [B, H, H].
        b2: of each frame [B, H].
        W3: [H, O].
        b3: [O].
        hidden1: gets w and h1 [B, N, L + H].
        hidden2: gets h2 [B, N, H].
        out: gets the output [B, N, O].
    """
    num_points, lanes, hidden, columns = out.shape[1], V.shape[1], V.shape[2], out.shape[2]
    chunks = -(-num_points // CHUNK)
    for item in range(first, last):
        frame, chunk = item // chunks, item % chunks
        source = frame if features.shape[0] > 1 else 0
        for begin in range(chunk * CHUNK, min(num_points, (chunk + 1) * CHUNK), _BLOCK):
            end = min(begin + _BLOCK, num_points)
            x, h1, h2, y = (
                features[source, begin:end],
                hidden1[frame, begin:end],
                hidden2[frame, begin:end],
                out[frame, begin:end],
            )
            _multiply(x, 0, Q.shape[1], Q[frame], q[frame], 0, h1, 0)
            _attend(h1, lanes)
            if len(base) > 0:
                _multiply(h1, 0, lanes, V[frame], base[begin:end].reshape(-1), hidden, h1, lanes)
            else:
                _multiply(x, 0, W1.shape[0], W1, b1, 0, h1, lanes)
                _multiply(h1, 0, lanes, V[frame], h1.reshape(-1)[lanes:], lanes + hidden, h1, lanes)
            _activate(h1, lanes)
            _multiply(h1, lanes, hidden, W2[frame], b2[frame], 0, h2, 0)
            _activate(h2, 0)
            _multiply(h2, 0, hidden, W3, b3, 0, y, 0)
            for row in range(end - begin):
                audio = _F0
                for lane in range(0, lanes, LANES):
                    audio += h1[row, lane]
                y[row, columns - 1] = audio * (_F1 / np.float32(lanes // LANES))


@inlined
def _part(shares, begin, rows, columns):
    """A matrix in a chunk's flat share of the weights' gradients, and where the next one begins."""
    end = begin + rows * columns
    return shares[begin:end].reshape(rows, columns), end


@vector_kernel
def decode_chunks_backward(first, last, features, QT, T1, VT, T2, T3, hidden1, hidden2, g_out, g_first, shares, g_features):
    """Backward pass of the chunks `first` to `last`.

    Args:
        first: first chunk.
        last: chunk after the last.
        features: as in the forward pass.
        QT: Q transposed, with as many columns as the features.
        T1: W1 transposed, with as many columns as the features.
        VT: V transposed.
        T2: W2 transposed.
        T3: W3 transposed.
        hidden1: from the forward pass.
        hidden2: from the forward pass.
        g_out: [B, N, O].
        g_first: gets dL/d(x Q + q) and dL/d(x W1 + b1 + w V), [B, N, L + H], where all frames share their points; what
            follows from it is left to the caller. Else without points.
        shares: gets each chunk's gradient of V, W2, b2, W3, b3, Q, q, W1, b1, one after the other; 0 before.
        g_features: gets [B, N, >= F]; no points: not wanted.
    """
    num_points, columns, lanes, hidden = g_out.shape[1], g_out.shape[2], VT.shape[2], T2.shape[2]
    chunks = -(-num_points // CHUNK)
    g3_buffer, g2_buffer = np.empty((_BLOCK, columns), np.float32), np.empty((_BLOCK, hidden), np.float32)
    g1_buffer = np.empty((_BLOCK, lanes + hidden), np.float32)
    nothing = np.zeros(max(hidden, features.shape[2]), np.float32)
    for item in range(first, last):
        frame, chunk = item // chunks, item % chunks
        source = frame if features.shape[0] > 1 else 0
        share = shares[item]
        g_V, at = _part(share, 0, lanes, hidden)
        g_W2, at = _part(share, at, hidden, hidden)
        g_b2, at = _part(share, at, 1, hidden)
        g_W3, at = _part(share, at, hidden, columns)
        g_b3, rest = _part(share, at, 1, columns)
        for begin in range(chunk * CHUNK, min(num_points, (chunk + 1) * CHUNK), _BLOCK):
            end = min(begin + _BLOCK, num_points)
            x, h1, h2 = features[source, begin:end], hidden1[frame, begin:end], hidden2[frame, begin:end]
            g3, g2 = g3_buffer[: end - begin], g2_buffer[: end - begin]
            g1 = g_first[frame, begin:end] if g_first.shape[1] > 0 else g1_buffer[: end - begin]
            g3[:] = g_out[frame, begin:end]
            g3[:, columns - 1] = _F0
            _add_outer(h2, 0, g3, 0, g_W3)
            _add_rows(g3, 0, g_b3)
            _multiply(g3, 0, columns, T3, nothing, 0, g2, 0)
            _pass_activation(g2, 0, h2, 0)
            _add_outer(h1, lanes, g2, 0, g_W2)
            _add_rows(g2, 0, g_b2)
            _multiply(g2, 0, hidden, T2[frame], nothing, 0, g1, lanes)
            _pass_activation(g1, lanes, h1, lanes)
            _add_outer(h1, 0, g1, lanes, g_V)
            _multiply(g1, lanes, hidden, VT[frame], nothing, 0, g1, 0)
            for row in range(end - begin):
                for lane in range(0, lanes, LANES):
                    g1[row, lane] += g_out[frame, begin + row, columns - 1] * (_F1 / np.float32(lanes // LANES))
            _pass_softmax(g1, h1, lanes)
            if g_first.shape[1] == 0:
                num_features = (len(share) - rest) // (lanes + hidden) - 1
                g_Q, at = _part(share, rest, num_features, lanes)
                g_q, at = _part(share, at, 1, lanes)
                g_W1, at = _part(share, at, num_features, hidden)
                g_b1, at = _part(share, at, 1, hidden)
                _add_outer(x, 0, g1, 0, g_Q)
                _add_rows(g1, 0, g_q)
                _add_outer(x, 0, g1, lanes, g_W1)
                _add_rows(g1, lanes, g_b1)
            if g_features.shape[1] > 0:
                g_x = g_features[frame, begin:end]
                _multiply(g1, 0, lanes, QT[frame], nothing, 0, g_x, 0)
                _multiply(g1, lanes, hidden, T1, g_x.reshape(-1), g_x.shape[1], g_x, 0)
