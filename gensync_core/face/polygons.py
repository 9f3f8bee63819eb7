"""Landmark polygons painted as masks: the face oval, lips, mouth and eyes."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gensync_core.face import regions
from gensync_core.face.regions import Region

_FINE_PX = 512
"""A frame of this size gets `_FINE_SAMPLES` samples a pixel along each axis, smaller ones more."""
_FINE_SAMPLES = 2
_SUBPIXEL_BITS = 4


def polygon_mask(
    landmarks_px: Float[np.ndarray, "478 3"], ring: Sequence[int], width: int, height: int
) -> Bool[np.ndarray, "height width"]:
    """Pixels more than half of which lie inside the polygon of the landmarks in `ring`."""
    mask = np.zeros((height, width), dtype=bool)
    paint_polygon(mask, landmarks_px, ring, True)
    return mask


def paint_polygon(
    picture: np.ndarray, landmarks_px: Float[np.ndarray, "478 3"], ring: Sequence[int], value: int | bool
) -> None:
    """Set the pixels of `polygon_mask` in `picture` [H, W] to `value`, in place; only the polygon's box is looked at."""
    height, width = picture.shape
    corners = landmarks_px[list(ring), :2].astype(np.float64)
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, (width, height)).astype(int)
    if right <= left or bottom <= top:
        return
    scale = max(_FINE_SAMPLES, -(-_FINE_PX * _FINE_SAMPLES // max(width, height)))
    canvas = np.zeros(((bottom - top) * scale, (right - left) * scale), dtype=np.uint8)
    limit = 4.0 * _FINE_PX * scale  # a landmark far outside must not overflow the fixed-point coordinates
    places = np.clip((corners - (left, top)) * scale - 0.5, -limit, limit)
    cv2.fillPoly(canvas, [np.round(places * (1 << _SUBPIXEL_BITS)).astype(np.int32)], 255, shift=_SUBPIXEL_BITS)
    covered = cv2.resize(canvas, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    picture[top:bottom, left:right][covered > 127] = value


def paint_features(labels: UInt8[np.ndarray, "H W"], landmarks_px: Float[np.ndarray, "478 3"]) -> None:
    """Paint eyes, lips and the open mouth over `labels`, in place."""
    paint_polygon(labels, landmarks_px, regions.LEFT_EYE, Region.EYES)
    paint_polygon(labels, landmarks_px, regions.RIGHT_EYE, Region.EYES)
    paint_polygon(labels, landmarks_px, regions.LIPS_OUTER, Region.LIPS)
    paint_polygon(labels, landmarks_px, regions.LIPS_INNER, Region.MOUTH)
