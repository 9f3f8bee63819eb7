"""Draws a textured triangle mesh: for every pixel of the target, the place in the texture that it shows."""

from typing import no_type_check

import numba
import numpy as np

OUTSIDE = -1e4


@numba.njit(nogil=True, error_model="numpy")
@no_type_check
def texture_map(triangles, texture_px, target_px, height, width):
    """Places in the texture for `cv2.remap` (pixel indices), `OUTSIDE` where no triangle lies; later triangles win.

    Args:
        triangles: [F, 3] indices.
        texture_px: [V, 2] float32, corners of the triangles in the texture.
        target_px: [V, 2] float32, the same corners in the target.
        height: rows of the target.
        width: columns of the target.

    Returns:
        [height, width, 2] float32.
    """
    places = np.full((height, width, 2), OUTSIDE, dtype=np.float32)
    for face in range(len(triangles)):
        a, b, c = triangles[face]
        ax, ay = target_px[a, 0] - 0.5, target_px[a, 1] - 0.5
        bx, by = target_px[b, 0] - 0.5 - ax, target_px[b, 1] - 0.5 - ay
        cx, cy = target_px[c, 0] - 0.5 - ax, target_px[c, 1] - 0.5 - ay
        area = bx * cy - by * cx
        if abs(area) < 1e-6:
            continue
        first_row = max(0, int(np.ceil(ay + min(0.0, by, cy))))
        last_row = min(height - 1, int(np.floor(ay + max(0.0, by, cy))))
        first_column = max(0, int(np.ceil(ax + min(0.0, bx, cx))))
        last_column = min(width - 1, int(np.floor(ax + max(0.0, bx, cx))))
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                dx, dy = column - ax, row - ay
                beta = (dx * cy - dy * cx) / area
                gamma = (bx * dy - by * dx) / area
                if beta >= -1e-4 and gamma >= -1e-4 and beta + gamma <= 1.0001:
                    alpha = 1 - beta - gamma
                    for axis in range(2):
                        places[row, column, axis] = (
                            alpha * texture_px[a, axis] + beta * texture_px[b, axis] + gamma * texture_px[c, axis] - 0.5
                        )
    return places
