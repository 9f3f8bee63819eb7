"""How a face's points move when the mouth opens, spreads or the eyes close: one displacement field per signal.

The fields are linear in their signals and live in the portrait's image plane, so that a frame is a weighted sum.
Source: own choice; a hand-made stand-in for expression blend shapes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gensync_core.face import regions

# Pairs of the inner lips and of the eyelids, upper and lower point, between the corners.
_INNER_LIP_PAIRS = tuple(zip(regions.LIPS_INNER[11:], reversed(regions.LIPS_INNER[1:10]), strict=True))
_RIGHT_LID_PAIRS = tuple(zip(reversed(regions.RIGHT_EYE[9:]), regions.RIGHT_EYE[1:8], strict=True))
_LEFT_LID_PAIRS = tuple(zip(reversed(regions.LEFT_EYE[9:]), regions.LEFT_EYE[1:8], strict=True))

_LOWER_LIP_SHARE = 0.78  # of the opening; the upper lip rises by the rest
_CLOSING_LOWER_SHARE = 0.6  # of a portrait's own gap between the lips
_CORNER_SHIFT = 0.07  # outward, of the inter-ocular distance at width 1
_LID_SHARE = 0.9  # the upper lid comes down this far


class FaceFields(NamedTuple):
    """Displacements [V, 2] in px. A frame's points are rest + closing + sum of signal * field.

    Attributes:
        closing: brings the portrait's own mouth to closed; always applied.
        opening: for an aperture of 1 inter-ocular distance.
        spreading: for a width of 1.
        left_blink: closed left eye.
        right_blink: closed right eye.
    """

    closing: Float[np.ndarray, "V 2"]
    opening: Float[np.ndarray, "V 2"]
    spreading: Float[np.ndarray, "V 2"]
    left_blink: Float[np.ndarray, "V 2"]
    right_blink: Float[np.ndarray, "V 2"]

    def displacement(self, aperture: float, width: float, blink: float) -> Float[np.ndarray, "V 2"]:
        """Displacement of one frame; both eyes close together."""
        eyes = blink * (self.left_blink + self.right_blink)
        return self.closing + aperture * self.opening + width * self.spreading + eyes


def face_fields(landmarks: Float[np.ndarray, "478 3"], points: Float[np.ndarray, "V 2"]) -> FaceFields:
    """Fields at `points`, the first 478 of which are the landmarks."""
    span = float(np.linalg.norm(landmarks[regions.RIGHT_EYE_OUTER, :2] - landmarks[regions.LEFT_EYE_OUTER, :2]))
    closing, opening, spreading = _mouth_fields(landmarks[:, :2], points, span)
    left, right = (
        _blink_field(landmarks[:, :2], points, pairs, corners, span)
        for pairs, corners in (
            (_LEFT_LID_PAIRS, (regions.LEFT_EYE_OUTER, regions.LEFT_EYE_INNER)),
            (_RIGHT_LID_PAIRS, (regions.RIGHT_EYE_OUTER, regions.RIGHT_EYE_INNER)),
        )
    )
    return FaceFields(closing, opening, spreading, left, right)


def _mouth_fields(landmarks: np.ndarray, points: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    corners = landmarks[[regions.LIPS_INNER[0], regions.LIPS_INNER[10]]]
    slit = _Slit(landmarks, _INNER_LIP_PAIRS, corners)
    along, below = slit.coordinates(points)
    below = below / span
    is_lower = below > 0
    is_lower[[lower for _, lower in _INNER_LIP_PAIRS]] = True
    is_lower[[upper for upper, _ in _INNER_LIP_PAIRS]] = False
    gap = slit.gap(along)
    depth = (np.where(is_lower, below, -below) - gap / (2 * span)).clip(min=0)  # from the lip's edge

    lip = np.clip(1 - along**2, 0, 1) ** 0.75
    chin = np.exp(-((along / 1.9) ** 2))
    to_chin = _smooth_step(depth / 0.4)
    jaw = (lip + (chin - lip) * to_chin) * (1 - _smooth_step((depth - 0.55) / 0.45))
    rise = lip * np.exp(-((depth / 0.13) ** 2))
    opening = span * np.where(is_lower, _LOWER_LIP_SHARE * jaw, -(1 - _LOWER_LIP_SHARE) * rise)[:, None] * slit.down

    nearness = np.exp(-((depth / 0.15) ** 2))
    toward = np.where(is_lower, -_CLOSING_LOWER_SHARE, 1 - _CLOSING_LOWER_SHARE) * gap * nearness
    closing = toward[:, None] * slit.down

    beyond = np.clip(np.abs(along) - 1, 0, None)
    outward = np.clip(along, -1, 1) * np.exp(-((beyond / 0.6) ** 2)) * np.exp(-((below / 0.28) ** 2))
    spreading = _CORNER_SHIFT * span * outward[:, None] * slit.right
    return closing, opening, spreading


def _blink_field(
    landmarks: np.ndarray, points: np.ndarray, pairs: tuple[tuple[int, int], ...], corners: tuple[int, int], span: float
) -> np.ndarray:
    slit = _Slit(landmarks, pairs, landmarks[list(corners)][np.argsort(landmarks[list(corners), 0])])
    along, below = slit.coordinates(points)
    gap = slit.gap(along)
    over_lid = np.clip(-below - gap / 2, 0, None) / span
    under_lid = np.clip(below - gap / 2, 0, None) / span
    down = _LID_SHARE * np.exp(-((over_lid / 0.06) ** 2))
    up = (1 - _LID_SHARE) * 0.6 * np.exp(-((under_lid / 0.06) ** 2))
    # Inside the eye only the rims are vertices; the irises do not move with the lids.
    move = np.where(below < 0, down, -up) * gap
    move[regions.NUM_MESH_LANDMARKS : regions.NUM_LANDMARKS] = 0
    return move[:, None] * slit.down


class _Slit:
    """A mouth or an eye: a line between two corners with a gap around it."""

    def __init__(self, landmarks: np.ndarray, pairs: tuple[tuple[int, int], ...], corners: np.ndarray) -> None:
        left, right = corners
        self._centre, self._half = (left + right) / 2, float(np.linalg.norm(right - left)) / 2
        self.right = (right - left) / (2 * self._half)
        self.down = np.array([-self.right[1], self.right[0]])
        upper, lower = landmarks[[pair[0] for pair in pairs]], landmarks[[pair[1] for pair in pairs]]
        places = (((upper + lower) / 2 - self._centre) @ self.right) / self._half
        order = np.argsort(places)
        self._places = np.concatenate([[-1.0], places[order], [1.0]])
        self._heights = np.concatenate([[0.0], (((upper + lower) / 2 - self._centre) @ self.down)[order], [0.0]])
        self._gaps = np.concatenate([[0.0], ((lower - upper) @ self.down)[order].clip(min=0), [0.0]])

    def coordinates(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Along the slit in half-widths (-1 and 1 at the corners), and px below its middle line."""
        along = ((points - self._centre) @ self.right) / self._half
        below = (points - self._centre) @ self.down - np.interp(along, self._places, self._heights)
        return along, below

    def gap(self, along: np.ndarray) -> np.ndarray:
        """Opening of the slit in px at places along it; 0 beyond the corners."""
        return np.interp(along, self._places, self._gaps)


def _smooth_step(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)
