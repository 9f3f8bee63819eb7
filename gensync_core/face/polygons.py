"""Landmark polygons painted as masks: the face oval, lips, mouth and eyes."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gensync_core.face import regions
from gensync_core.face.regions import Region

_CANVAS_PX = 512
_SUBPIXEL_BITS = 4


def polygon_mask(
    landmarks_px: Float[np.ndarray, "478 3"], ring: Sequence[int], width: int, height: int
) -> Bool[np.ndarray, "height width"]:
    """Pixels more than half of which lie inside the polygon of the landmarks in `ring`."""
    scale = max(1, -(-_CANVAS_PX // max(width, height)))
    canvas = np.zeros((height * scale, width * scale), dtype=np.uint8)
    corners = landmarks_px[list(ring), :2].astype(np.float64) * scale - 0.5
    limit = 4.0 * _CANVAS_PX * scale  # a landmark far outside must not overflow the fixed-point coordinates
    fixed = np.round(np.clip(corners, -limit, limit) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], 255, shift=_SUBPIXEL_BITS)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA) > 127


def paint_features(labels: UInt8[np.ndarray, "H W"], landmarks_px: Float[np.ndarray, "478 3"]) -> None:
    """Paint eyes, lips and the open mouth over `labels`, in place."""
    height, width = labels.shape
    for eye in (regions.LEFT_EYE, regions.RIGHT_EYE):
        labels[polygon_mask(landmarks_px, eye, width, height)] = Region.EYES
    labels[polygon_mask(landmarks_px, regions.LIPS_OUTER, width, height)] = Region.LIPS
    labels[polygon_mask(landmarks_px, regions.LIPS_INNER, width, height)] = Region.MOUTH
