"""Chosen held-out frames side by side: what the numbers look like."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

TILE_PX = 160
_GAP_PX = 4
_GAP_VALUE = 128


def spread_over_apertures(aperture: Float[np.ndarray, "T"], count: int) -> Int[np.ndarray, "n"]:
    """Frames from the most closed to the widest open mouth, evenly spread over the sorted openings.

    Frames without a face (NaN) are left out; where no frame has one, frames are spread over time.
    """
    known = np.flatnonzero(np.isfinite(aperture))
    ordered = known[np.argsort(aperture[known], kind="stable")] if len(known) else np.arange(len(aperture))
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return ordered[places]


def tile(image: UInt8[np.ndarray, "h w 3"], side_px: int = TILE_PX) -> UInt8[np.ndarray, "s s 3"]:
    """The image as a square tile."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side_px, side_px), Image.Resampling.BICUBIC))


def arrange(rows: Sequence[Sequence[UInt8[np.ndarray, "s s 3"]]]) -> UInt8[np.ndarray, "H W 3"]:
    """Rows of equal tiles as one image with narrow gaps between them.

    Raises:
        ValueError: no tile, or rows of unequal length.
    """
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"rows of a contact sheet must be equally long and not empty: {[len(row) for row in rows]}")
    side = rows[0][0].shape[0]
    height, width = (count * side + (count - 1) * _GAP_PX for count in (len(rows), len(rows[0])))
    sheet = np.full((height, width, 3), _GAP_VALUE, dtype=np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = y * (side + _GAP_PX), x * (side + _GAP_PX)
            sheet[top : top + side, left : left + side] = image
    return sheet
