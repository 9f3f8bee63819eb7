"""The line where the head lies over the body: how far colours are off beside it, and whether a seam shows.

Two clouds meet there, and each was trained without the other: jaw against neck, hair against shoulders.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, gaussian_filter, map_coordinates

from gensync_core.evaluation.image_metrics import unit_range
from gensync_core.face.regions import BODY, HEAD

_BAND_SHARE = 1 / 32
_SMOOTHING_PX = 2.0
"""Of the distance from the line, whose gradient is the way across: masks have stairs."""
_LEVELS = 255


class NeckFigures(NamedTuple):
    """In 8-bit levels; NaN for a frame in which head and body do not touch.

    Attributes:
        colour_error: mean |result - truth| of the pixels of head and body beside the line.
        seam: by how much the steepest change between neighbouring pixels on the way across the line exceeds the truth's,
            averaged along the line.
    """

    colour_error: float
    seam: float


def neck_figures(
    image: Shaped[np.ndarray, "H W 3"], truth: Shaped[np.ndarray, "H W 3"], labels: Shaped[np.ndarray, "H W"]
) -> NeckFigures:
    """Compare a rendered frame with the true one along the line, up to a thirty-second of the frame's height to both sides.

    An edge that the truth has too, or has a little beside, is no seam; neither is a blurred one.

    Source: own choice.
    """
    head, body = (np.isin(labels, [int(region) for region in regions]) for regions in (HEAD, BODY))
    line = np.logical_and(head, binary_dilation(body))
    if not line.any():
        return NeckFigures(float("nan"), float("nan"))
    reach_px = max(2, round(_BAND_SHARE * image.shape[0]))
    person = head | body
    band = np.logical_and(person, _distance(line) <= reach_px)
    result, target = _LEVELS * unit_range(image), _LEVELS * unit_range(truth)
    colour_error = float(np.abs(result - target)[band].mean(dtype=np.float64))
    # Between two pixels at the border of the person the background would be seen.
    ways = _ways_across(line, head, binary_erosion(person, border_value=1), reach_px)
    if ways.shape[1] == 0:
        return NeckFigures(colour_error, float("nan"))
    excess = np.maximum(_steepest(result, ways) - _steepest(target, ways), 0)
    return NeckFigures(colour_error, float(excess.mean(dtype=np.float64)))


def _ways_across(
    line: Bool[np.ndarray, "H W"], head: Bool[np.ndarray, "H W"], allowed: Bool[np.ndarray, "H W"], reach_px: int
) -> Float[np.ndarray, "2 L S"]:
    """Rows and columns of points 1 px apart, from head to body through each pixel of the line, as far as all are allowed."""
    distance = gaussian_filter(_distance(head) - _distance(~head), _SMOOTHING_PX)
    places = np.stack(np.nonzero(line))
    direction = np.stack([np.asarray(slope)[line] for slope in np.gradient(distance)])
    direction /= np.maximum(np.linalg.norm(direction, axis=0), 1e-6)
    steps = np.arange(-reach_px, reach_px + 1)
    ways = places[..., None] + direction[..., None] * steps
    rows, columns = np.rint(ways).astype(int)
    height, width = line.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    there = allowed[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return ways[:, (inside & there).all(axis=1)]


def _distance(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Of each pixel to the mask, px."""
    return np.asarray(distance_transform_edt(~mask))


def _steepest(image: Float[np.ndarray, "H W 3"], ways: Float[np.ndarray, "2 L S"]) -> Float[np.ndarray, "L"]:
    """Largest change from one point of each way to the next, of the channel that changes most."""
    colours = np.stack([map_coordinates(image[..., channel], ways, order=1, mode="nearest") for channel in range(3)])
    return np.abs(np.diff(colours, axis=-1)).max(axis=(0, 2))
