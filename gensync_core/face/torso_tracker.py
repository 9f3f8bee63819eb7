"""How the upper body moves in the picture: one affine map a frame, by aligning its pixels with a reference frame's.

Shapes: F frames.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gensync_core.face.regions import BODY
from gensync_core.geometry.camera import Intrinsics

_LOGGER = logging.getLogger(__name__)

_TRACKED_HEIGHT_PX = 256
"""Larger frames are reduced to this: shoulders have little detail."""
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-3)
_MODEL = cv2.MOTION_AFFINE
_MARGIN = 0.12  # of the picture's height: how far the body may move up or down
_MIN_CORRELATION = 0.8
_BLUR_PX = 5
_MIN_SEEN_SHARE = 0.3

_OF_BODY = np.isin(np.arange(256), [int(region) for region in BODY]).astype(np.uint8) * 255


class BodyView(NamedTuple):
    """A frame, grey, and its segmentation."""

    image: UInt8[np.ndarray, "H W"]
    labels: UInt8[np.ndarray, "H W"]


class TorsoTrack(NamedTuple):
    """Motion of the body from the reference frame to each frame; not meaningful where it was `lost`.

    Attributes:
        warp: takes pixels of the reference frame to where they are in the frame. Affine, not rigid: who leans or turns
            looks larger, or narrower.
    """

    warp: Float[np.ndarray, "F 2 3"]
    lost: Bool[np.ndarray, "F"]


def track_torso(reference: BodyView, views: Iterable[BodyView]) -> TorsoTrack:
    """Align each view's body with the reference frame.

    Args:
        reference: the frame that motions start from.
        views: other frames of the same size.

    Source: enhanced correlation coefficient (Evangelidis and Psarakis, 2008), as in OpenCV.
    """
    scale = min(1.0, _TRACKED_HEIGHT_PX / reference.image.shape[0])
    template, body = _prepared(reference, scale)
    rows = _rows_of(body)
    template = template[rows]
    still = np.eye(2, 3, dtype=np.float32)
    warp, warps, lost = still, [], []
    for view in views:
        gray, mask = (part[rows] for part in _prepared(view, scale))
        try:  # from where the last frame's body was
            correlation, found = cv2.findTransformECC(template, gray, warp.copy(), _MODEL, _CRITERIA, mask, _BLUR_PX)
        except cv2.error:  # no overlap, or it does not converge
            correlation, found = 0.0, still
        lost.append(correlation < _MIN_CORRELATION)
        warp = still if lost[-1] else np.asarray(found, np.float32)
        warps.append(_from_row(warp, rows.start) / [1, 1, scale])
    return TorsoTrack(np.array(warps).reshape(-1, 2, 3), np.array(lost, bool))


def reference_frame(head_to_camera: Float[np.ndarray, "F 4 4"]) -> int:
    """The frame whose head pose is nearest to the mean pose: where body motion starts from."""
    return int(np.square(head_to_camera - head_to_camera.mean(axis=0)).sum(axis=(1, 2)).argmin())


def body_poses(track: TorsoTrack, camera: Intrinsics) -> Float[np.ndarray, "F 4 4"]:
    """Matrices that move the body of the reference frame so that it is seen where it was tracked, at every depth.

    Args:
        track: lost frames are filled from their neighbours; where most are lost the body stands still.
        camera: of the clip.

    Returns:
        An affine map across the view axis, and a shift that grows with the depth (a shear): what moves in the picture
        says nothing about depth.
    """
    poses = np.tile(np.eye(4, dtype=np.float32), (len(track.lost), 1, 1))
    seen = np.nonzero(~track.lost)[0]
    if len(seen) < _MIN_SEEN_SHARE * len(track.lost):
        _LOGGER.warning("the body could be followed in %d of %d frames: it will stand still", len(seen), len(track.lost))
        return poses
    every = np.arange(len(track.lost))
    filled = [np.interp(every, seen, number[seen]) for number in track.warp.reshape(-1, 6).T]
    pixels = np.tile(np.eye(3), (len(every), 1, 1))
    pixels[:, :2] = np.stack(filled, axis=1).reshape(-1, 2, 3)
    matrix = camera.matrix()
    poses[:, :3, :3] = np.linalg.inv(matrix) @ pixels @ matrix
    return poses


def _prepared(view: BodyView, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Gray picture and mask of the body, reduced."""
    gray, labels = view
    if scale < 1:
        size = round(gray.shape[1] * scale), round(gray.shape[0] * scale)
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return gray, cv2.LUT(labels, _OF_BODY)


def _rows_of(body: UInt8[np.ndarray, "h w"]) -> slice:
    """The rows of a picture that show the body, and some above and below for its motion; all rows where there is no body."""
    height = len(body)
    seen = np.flatnonzero(body.any(axis=1))
    if not len(seen):
        return slice(0, height)
    margin = round(_MARGIN * height)
    return slice(max(int(seen[0]) - margin, 0), min(int(seen[-1]) + 1 + margin, height))


def _from_row(warp: Float[np.ndarray, "2 3"], row: int) -> Float[np.ndarray, "2 3"]:
    """The warp of pictures of which those that `warp` aligns are the part from `row` on."""
    whole = warp.copy()
    whole[:, 2] -= row * (warp[:, 1] - np.array([0, 1], warp.dtype))
    return whole
