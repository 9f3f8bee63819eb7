"""The window of SSIM, and how images lie in memory for the kernels of the losses. Needs no numba."""

import numpy as np

LANES = 8
RADIUS, _SIGMA = 5, 1.5
_taps = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * _SIGMA**2))
WINDOW_TAPS = _taps / _taps.sum()


def packed_shape(height: int, width: int, channels: int, planes: int) -> tuple[int, int, int]:
    """Rows, planes and floats in a row; the last a multiple of 8, with room for a vector that starts inside the row."""
    row = -(-width * channels // LANES) * LANES + 2 * RADIUS * channels
    return height + 2 * RADIUS + 1, planes, -(-row // LANES) * LANES
