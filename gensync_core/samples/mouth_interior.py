"""What an open mouth shows: teeth, tongue and the dark behind them, painted."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gensync_core.face import regions
from gensync_core.geometry.camera import project, unproject
from gensync_core.samples.head_model import HeadModel, PosedHead

_DARK = (38, 14, 14)
_TEETH = (212, 199, 182)
_TONGUE = (158, 84, 82)
_TOOTH_WIDTH = 0.085  # these in inter-ocular distances
_UPPER_TEETH = (-0.16, 0.045)  # top and lower edge, below the line where the lips meet
_LOWER_TEETH = (0.015, 0.12)
_TONGUE_TOP = -0.09
_SHADOW = 0.035


class MouthInterior(NamedTuple):
    """Painted parts as seen at rest with the mouth closed, at twice the portrait's size; premultiplied RGBA.

    Attributes:
        upper: teeth that move with the head.
        lower: teeth and tongue that move with the jaw.
        jaw_drop_px: how far the lower part moves down at an aperture of 1, px of the portrait.
    """

    upper: UInt8[np.ndarray, "H2 W2 4"]
    lower: UInt8[np.ndarray, "H2 W2 4"]
    jaw_drop_px: Float[np.ndarray, "2"]


def paint_interior(model: HeadModel) -> MouthInterior:
    """Paint teeth and tongue to the measure of a head."""
    scale = 2.0
    height, width = int(model.camera.height * scale), int(model.camera.width * scale)
    span = model.span_px * scale
    closed = (model.points_px + model.fields.displacement(0.0, 0.0, 0.0)) * scale
    line = closed[list(regions.LIPS_INNER[:11])]
    order = np.argsort(line[:, 0])
    columns = np.arange(width) + 0.5
    seam = np.interp(columns, line[order, 0], line[order, 1])
    middle, half = line[:, 0].mean(), np.ptp(line[:, 0]) / 2
    along = (columns - middle) / half
    below = (np.arange(height)[:, None] + 0.5 - seam[None, :]) / span

    arch = 0.035 * along**2  # the row of teeth curves away from us
    shade = np.clip(1.05 - 0.45 * along**2, 0.25, 1.0)
    tooth = np.abs(((columns - middle) / (_TOOTH_WIDTH * span)) % 1.0 - 0.5)
    shade = shade * np.where(tooth > 0.44, 0.9, 1.0)
    upper = _band(below, _UPPER_TEETH[0], _UPPER_TEETH[1] - arch, 0.012) * _band(along, -0.8, 0.8, 0.1)
    lower = _band(below, _LOWER_TEETH[0] + arch, _LOWER_TEETH[1], 0.012) * _band(along, -0.6, 0.6, 0.1)
    tongue = np.sqrt(np.clip(1 - (along / 0.75) ** 2, 0, 1)) * np.clip((below - _TONGUE_TOP) / 0.06, 0, 1) * (below < 0.3)
    teeth_below = _layer(lower, _TEETH, 0.72 * shade[None, :])
    tongue_behind = _layer(tongue, _TONGUE, np.broadcast_to(np.clip(0.55 + 3 * below, 0.4, 1.0), tongue.shape))
    covered = teeth_below + tongue_behind * (1 - teeth_below[..., 3:] / 255)
    drop = model.fields.opening[regions.LOWER_INNER_LIP]
    return MouthInterior(_quantise(_layer(upper, _TEETH, shade[None, :])), _quantise(covered), drop)


def draw_interior(
    interior: MouthInterior, model: HeadModel, posed: PosedHead, aperture: float, canvas: UInt8[np.ndarray, "H2 W2 4"]
) -> None:
    """Put the mouth's interior under the head that was drawn on `canvas` (premultiplied RGBA, twice the video's size)."""
    outline = 2.0 * posed.points_px[list(regions.LIPS_INNER)]
    margin = int(0.12 * 2 * model.span_px)
    left, top = np.maximum(outline.min(axis=0).astype(int) - margin, 0)
    right, bottom = outline.max(axis=0).astype(int) + margin
    piece = canvas[top:bottom, left:right]
    height, width = piece.shape[:2]

    mask = np.zeros((height, width), dtype=np.uint8)
    corners = np.rint((outline - (left, top) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
    mask = cv2.dilate(mask, np.ones((3, 3), dtype=np.uint8))
    hollow = cv2.GaussianBlur(mask, (0, 0), _SHADOW * 2 * model.span_px).astype(np.float32) / 255
    light = np.clip(1.25 * hollow, 0, 1)[..., None]

    scene = np.full((height, width, 3), _DARK, dtype=np.float32)
    for part, drop in ((interior.lower, aperture), (interior.upper, 0.0)):
        carried = _carry(model, posed, drop * interior.jaw_drop_px)
        carried[:, 2] -= (left, top)
        moved = cv2.warpAffine(part, carried, (width, height), flags=cv2.INTER_LINEAR).astype(np.float32)
        scene = moved[..., :3] + scene * (1 - moved[..., 3:] / 255)
    scene *= light
    cover = mask.astype(np.float32)[..., None] / 255
    under = np.concatenate([scene * cover, 255 * cover], axis=2)
    piece[:] = np.rint(piece + under * (1 - piece[..., 3:].astype(np.float32) / 255)).clip(0, 255).astype(np.uint8)


def _carry(model: HeadModel, posed: PosedHead, drop_px: np.ndarray) -> np.ndarray:
    """Affine map [2, 3] from the rest picture to this frame, at twice the size, of what sits rigidly behind the lips."""
    K = model.camera.matrix().astype(np.float64)
    centre = model.points_px[list(regions.LIPS_INNER)].mean(axis=0)
    reach = 0.3 * model.span_px
    corners = centre + reach * np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    depth = np.full(3, model.depth[regions.UPPER_INNER_LIP] + 0.06)
    points = unproject(corners + drop_px, depth, K)
    movement = posed.head_to_camera @ np.linalg.inv(model.head_to_camera)
    seen = project(points @ movement[:3, :3].T + movement[:3, 3], K)
    return cv2.getAffineTransform((2 * corners - 0.5).astype(np.float32), (2 * seen - 0.5).astype(np.float32))


def _band(values: np.ndarray, low: np.ndarray | float, high: np.ndarray | float, soft: float) -> np.ndarray:
    return np.clip((values - low) / soft, 0, 1) * np.clip((high - values) / soft, 0, 1)


def _layer(cover: np.ndarray, color: tuple[int, int, int], shade: np.ndarray) -> np.ndarray:
    color_of_pixel = np.array(color, dtype=np.float32) * np.broadcast_to(shade, cover.shape)[..., None]
    return np.concatenate([color_of_pixel * cover[..., None], 255 * cover[..., None]], axis=2)


def _quantise(layer: np.ndarray) -> np.ndarray:
    return np.rint(layer.clip(0, 255)).astype(np.uint8)
