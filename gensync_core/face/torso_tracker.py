"""How the upper body moves in the picture: one shift and roll a frame, by aligning its pixels with a reference frame's."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gensync_core.face.regions import BODY

_TRACKED_HEIGHT_PX = 256
"""Larger frames are reduced to this: shoulders have little detail."""
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
_MODEL = cv2.MOTION_EUCLIDEAN
_MIN_CORRELATION = 0.8
_BLUR_PX = 5


class BodyView(NamedTuple):
    """A frame and its segmentation."""

    image: UInt8[np.ndarray, "H W 3"]
    labels: UInt8[np.ndarray, "H W"]


class TorsoTrack(NamedTuple):
    """Motion of the body from the reference frame to each frame; not meaningful where it was `lost`.

    Attributes:
        shift_px: of the point `about`, x and y.
        roll: radian, from x towards y.
    """

    shift_px: Float[np.ndarray, "F 2"]
    roll: Float[np.ndarray, "F"]
    lost: Bool[np.ndarray, "F"]


def track_torso(reference: BodyView, views: Iterable[BodyView], about: tuple[float, float]) -> TorsoTrack:
    """Align each view's body with the reference frame.

    Args:
        reference: the frame that motions start from.
        views: other frames of the same size.
        about: point of the reference frame, px, whose shift is reported.

    Source: enhanced correlation coefficient (Evangelidis and Psarakis, 2008), as in OpenCV.
    """
    scale = min(1.0, _TRACKED_HEIGHT_PX / reference.image.shape[0])
    template, _ = _prepared(reference, scale)
    point = np.array([*about, 1.0]) * [scale, scale, 1.0]
    still = np.eye(2, 3, dtype=np.float32)
    warp, shifts, rolls, lost = still, [], [], []
    for view in views:
        gray, mask = _prepared(view, scale)
        try:  # from where the last frame's body was
            correlation, found = cv2.findTransformECC(template, gray, warp.copy(), _MODEL, _CRITERIA, mask, _BLUR_PX)
        except cv2.error:  # no overlap, or it does not converge
            correlation, found = 0.0, still
        lost.append(correlation < _MIN_CORRELATION)
        warp = still if lost[-1] else np.asarray(found, np.float32)
        shifts.append((warp @ point - point[:2]) / scale)
        rolls.append(np.arctan2(warp[1, 0], warp[0, 0]))
    return TorsoTrack(np.array(shifts).reshape(-1, 2), np.array(rolls), np.array(lost, bool))


def _prepared(view: BodyView, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Gray picture and mask of the body, reduced."""
    gray = cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)
    mask = np.isin(view.labels, [int(region) for region in BODY]).astype(np.uint8) * 255
    if scale == 1.0:
        return gray, mask
    size = round(gray.shape[1] * scale), round(gray.shape[0] * scale)
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
