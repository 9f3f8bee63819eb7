"""What poses and shape of a head are found from: landmarks of the face mesh, and points of the skin.

Shapes: T frames, N points of one kind. Source: own choice.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gensync_core.face import regions
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.face.skin_points import SkinPoints

_INDEPENDENT_LANDMARKS = 12.0  # errors of neighbouring landmarks are alike: all together tell as much as this many
_INDEPENDENT_SKIN_POINTS = 20.0
_FEW_SKIN_POINTS = 20  # fewer than these in a frame count for less


@dataclass(frozen=True, slots=True)
class Observations:
    """Points of one kind: where they lie [N, 3], where they are seen [T, N, 2], and how much that says.

    `weights` [T or 1, N] are those of squared residuals for poses, `certainty` [T or 1, N] for the shape, where each point
    stands for itself; both 1/px^2.
    """

    canonical: np.ndarray
    seen_px: np.ndarray
    weights: np.ndarray
    certainty: np.ndarray


def rigid_weights() -> Float[np.ndarray, "478"]:
    """How much each landmark tells about the skull: 1 for forehead, nose, cheekbones, temples and eye corners, else less."""
    mesh = canonical_landmarks()
    weights = np.ones(regions.NUM_LANDMARKS)
    weights[list(regions.FACE_OVAL)] = 0.2  # slides along the visible rim of a turning head
    below_nose = mesh[:, 1] > mesh[regions.NOSE_BASE, 1]
    weights[below_nose] = 0.0
    weights[list(regions.LEFT_EYEBROW + regions.RIGHT_EYEBROW)] = 0.1
    for eye in (regions.LEFT_EYE, regions.RIGHT_EYE):
        weights[list(eye)] = 0.05
    corners = (regions.LEFT_EYE_INNER, regions.LEFT_EYE_OUTER, regions.RIGHT_EYE_INNER, regions.RIGHT_EYE_OUTER)
    weights[list(corners)] = 1.0
    weights[regions.NUM_MESH_LANDMARKS :] = 0.0
    return weights


def fill_lost(landmarks: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Landmarks [T, L, 3] with lost rows interpolated in time; the very same where none is lost."""
    if found.all():
        return landmarks.astype(np.float32, copy=False)
    seen, lost = np.flatnonzero(found), np.flatnonzero(~found)
    after = np.searchsorted(seen, lost)
    first, last = seen[np.maximum(after - 1, 0)], seen[np.minimum(after, len(seen) - 1)]
    share = np.clip((lost - first) / np.maximum(last - first, 1), 0, 1).astype(np.float32)[:, None, None]
    filled = landmarks.astype(np.float32)
    filled[lost] = (1 - share) * filled[first] + share * filled[last]
    return filled


def mesh_observations(landmarks: np.ndarray, rigid: np.ndarray, sigma_px: float) -> Observations:
    """Landmarks [T, 478, 3] on the canonical face, each with its share of `rigid`, whose error is `sigma_px`."""
    weights = rigid / rigid.sum() * _INDEPENDENT_LANDMARKS / sigma_px**2
    certainty = np.full_like(weights, 1 / sigma_px**2)
    return Observations(canonical_landmarks().astype(np.float64), landmarks[..., :2], weights[None], certainty[None])


def skin_observations(skin: SkinPoints, found: np.ndarray, sigma_px: float) -> Observations:
    """Points of frames without a face do not count: what they follow may be a hand."""
    seen = np.isfinite(skin.seen_px).all(axis=-1) & found[:, None]
    certainty = seen / sigma_px**2
    weights = certainty * _INDEPENDENT_SKIN_POINTS / np.maximum(seen.sum(axis=1, keepdims=True), _FEW_SKIN_POINTS)
    pixels = np.where(seen[..., None], skin.seen_px, np.float32(0))
    return Observations(skin.canonical.astype(np.float64), pixels, weights, certainty)
