"""Points of the skin, followed by their pixels: landmarks lag behind a turning head and tremble, pixels do neither.

Every frame is seen from straight ahead by its pose (`FrontView`): where the pose is right, forehead, nose and cheekbones stand
still. What still moves there against a reference frame is measured at corners of the picture, and says how the pose is wrong.

Shapes: F frames, K points, H and W of the front view. Source: own choice; flow of Lucas and Kanade (1981), as in OpenCV.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.interpolate import LinearNDInterpolator

from gensync_core.face import regions
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.geometry.camera import Intrinsics

_LOG = logging.getLogger(__name__)
PX_PER_DM = 120.0
"""Of the front view."""
_MARGIN_DM = 0.05
_EYE_REACH_DM = 0.06  # around eyes and brows, which move
_RIM_DM = 0.06  # of the view: temples hide and show themselves, nostrils follow the mouth
_CONTRAST_DM = 0.15  # light is evened out over so far
_SMALLER = 4
_NOISE_LEVELS = 3.0  # of 255; what is no stronger stays weak
_SPREAD_LEVELS = 50.0
_MAX_POINTS, _LEAST_QUALITY, _SPACING_PX, _CORNER_PX = 150, 0.01, 5, 7
_WINDOW_PX, _PYRAMID_LEVELS = (21, 21), 2
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01)
_MAX_RETURN_PX = 0.5  # from where a point lies after there and back again
_MAX_SHIFT_PX = 18.0  # no pose is as wrong as that
_MIN_SEEN_SHARE = 0.3

Picture = UInt8[np.ndarray, "H W"]
"""A grey frame."""


class SkinPoints(NamedTuple):
    """Points of the skin in every frame.

    Attributes:
        canonical: where they lie on the mesh, decimetre.
        seen_px: px of the frame; NaN where a point was not found again.
    """

    canonical: Float[np.ndarray, "K 3"]
    seen_px: Float[np.ndarray, "F K 2"]


class FrontView:
    """A face, or a part of it, from straight ahead, without perspective.

    Attributes:
        still: which pixels of the view show skin that moves with the skull: neither eyes nor brows.

    Args:
        shape: the speaker's face in the canonical frame, decimetre.
        camera: of the frames.
        part: the landmarks that span the view; without it, those above the base of the nose.
    """

    def __init__(
        self, shape: Float[np.ndarray, "478 3"], camera: Intrinsics, part: Bool[np.ndarray, "478"] | None = None
    ) -> None:
        spanning = shape[upper_landmarks() if part is None else part].astype(np.float64)
        low, high = spanning[:, :2].min(axis=0) - _MARGIN_DM, spanning[:, :2].max(axis=0) + _MARGIN_DM
        width, height = np.ceil((high - low) * PX_PER_DM).astype(int)
        flat = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) / PX_PER_DM + low
        depth = LinearNDInterpolator(spanning[:, :2], spanning[:, 2])(flat)
        inside = np.isfinite(depth)
        depth = np.where(inside, depth, spanning[:, 2].mean())
        self._low, self._K = low, camera.matrix()
        self._surface = np.concatenate([flat, depth[..., None]], axis=-1).astype(np.float32)
        self._points = np.concatenate([self._surface.reshape(-1, 3).T, np.ones((1, width * height), np.float32)])
        self.still: Bool[np.ndarray, "H W"] = _smaller(inside, _RIM_DM) & ~self._moving(shape)

    def places(self, head_to_camera: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "H W 2"]:
        """Where each pixel of the view lies in a frame, px."""
        x, y, z = (self._K @ head_to_camera[:3].astype(np.float32)) @ self._points
        return np.stack([x / z, y / z], axis=-1).reshape(*self._surface.shape[:2], 2)

    def picture(
        self, frame: UInt8[np.ndarray, "rows columns *channels"], places: Float[np.ndarray, "H W 2"]
    ) -> UInt8[np.ndarray, "H W *channels"]:
        """The view of a frame, or of its grey picture."""
        columns, rows = cv2.split(places - np.float32(0.5))
        return cv2.remap(frame, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def on_mesh(self, points_px: Float[np.ndarray, "K 2"]) -> Float[np.ndarray, "K 3"]:
        """The mesh at points of the view, decimetre."""
        return _sample(self._surface, points_px)

    def from_mesh(self, points: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K 2"]:
        """Where points of the canonical frame lie in the view, px."""
        return (points[:, :2] - self._low) * PX_PER_DM

    def _moving(self, shape: np.ndarray) -> np.ndarray:
        mask = np.zeros(self._surface.shape[:2], dtype=np.uint8)
        for part in (regions.LEFT_EYE, regions.RIGHT_EYE, regions.LEFT_EYEBROW, regions.RIGHT_EYEBROW):
            outline = cv2.convexHull(np.rint(self.from_mesh(shape[list(part)])).astype(np.int32))
            cv2.fillConvexPoly(mask, outline, 1)
        return ~_smaller(mask == 0, _EYE_REACH_DM)


class SkinFollower:
    """Finds the points of a reference frame in other frames, one by one, whatever their order.

    Attributes:
        canonical: the points on the mesh, [K, 3] dm.

    Args:
        view: of the speaker.
        reference: the frame that shows the points, grey like all others.
        pose: its head to camera.
    """

    def __init__(self, view: FrontView, reference: Picture, pose: Float[np.ndarray, "4 4"]) -> None:
        self._view = view
        self._template = _even_light(view.picture(reference, view.places(pose)))
        corners = cv2.goodFeaturesToTrack(
            *(self._template, _MAX_POINTS, _LEAST_QUALITY, _SPACING_PX),
            mask=view.still.astype(np.uint8),
            blockSize=_CORNER_PX,
        )
        self._points = np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
        self.canonical = view.on_mesh(self._points)

    def follow(self, frame: Picture, pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "K 2"]:
        """Where the points are in a frame, px, near where its `pose` puts them; NaN for those that are not found."""
        if not len(self._points):
            return self._points
        places = self._view.places(pose)
        view = _even_light(self._view.picture(frame, places))
        there, found = _flow(self._template, view, self._points, self._points)
        back, found_back = _flow(view, self._template, there, self._points)
        good = found & found_back & (np.linalg.norm(back - self._points, axis=1) < _MAX_RETURN_PX)
        good &= np.linalg.norm(there - self._points, axis=1) < _MAX_SHIFT_PX
        return np.where(good[:, None], _sample(places, there), np.float32(np.nan))

    def gather(self, seen_px: Sequence[Float[np.ndarray, "K 2"]]) -> SkinPoints | None:
        """What `follow` gave for every frame; None where too little was found for it to be the same face all the time."""
        seen = np.stack(seen_px)
        share = float(np.isfinite(seen[..., 0]).mean()) if seen.size else 0.0
        _LOG.info("%d points of the skin, found in %.0f%% of the frames", len(self.canonical), 100 * share)
        if share < _MIN_SEEN_SHARE:
            _LOG.warning("the skin has too little to hold on to: poses come from landmarks alone")
            return None
        return SkinPoints(self.canonical, seen)


def _smaller(mask: np.ndarray, margin_dm: float) -> np.ndarray:
    """The mask [H, W] without its rim; outside the picture there is nothing."""
    reach = 2 * round(margin_dm * PX_PER_DM) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    eroded = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return eroded > 0


def upper_landmarks() -> Bool[np.ndarray, "478"]:
    """Which vertices of the mesh lie above the base of the nose."""
    mesh = canonical_landmarks()
    upper = mesh[:, 1] <= mesh[regions.NOSE_BASE, 1]
    upper[regions.NUM_MESH_LANDMARKS :] = False
    return upper


def _even_light(picture: np.ndarray) -> np.ndarray:
    """Grey bytes whose mean and contrast are the same everywhere: shadows wander over a turning head."""
    detail = picture - _around(picture.astype(np.float32))
    spread = np.sqrt(np.maximum(_around(detail * detail), 0))
    return np.clip(128 + _SPREAD_LEVELS * detail / (spread + _NOISE_LEVELS), 0, 255).astype(np.uint8)


def _around(values: np.ndarray) -> np.ndarray:
    """Mean [H, W] of the neighbourhood, found at a quarter of the size."""
    height, width = values.shape
    small = cv2.resize(values, (-(-width // _SMALLER), -(-height // _SMALLER)), interpolation=cv2.INTER_AREA)
    reach = _CONTRAST_DM * PX_PER_DM / _SMALLER
    small = cv2.GaussianBlur(small, (0, 0), reach, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _flow(first: np.ndarray, second: np.ndarray, points: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points [K, 2] of the first picture are in the second, looked for around `guess`, and whether they were found."""
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        *(first, second, points[:, None], guess[:, None].copy()),
        winSize=_WINDOW_PX,
        maxLevel=_PYRAMID_LEVELS,
        criteria=_CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return found.reshape(-1, 2), status.reshape(-1) > 0


def _sample(values: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """`values` [H, W, C] at points [K, 2], bilinear."""
    if not len(points_px):
        return np.zeros((0, values.shape[-1]), values.dtype)
    columns, rows = points_px.T.astype(np.float32)[..., None]
    return cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(len(points_px), -1)
