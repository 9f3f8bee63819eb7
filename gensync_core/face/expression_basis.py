"""What a face does besides moving as a whole: a few directions of all landmarks together, and how far it goes along each.

The basis is the speaker's own: principal directions of what the landmarks of one clip do about their mean. In time the
weights follow a random walk, so that noise of single frames is taken out and lost frames lie between their neighbours.

Shapes: T frames, K directions, L landmarks. Source: own choice; principal components as in active shape models (Cootes et al.,
1995).
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solveh_banded

_MAX_DIRECTIONS: Final = 24
_EXPLAINED: Final = 0.98
_FITTED_FRAMES: Final = 400  # evenly spread
_NOISE_OVER_STEP: Final = 0.2
"""Variance of a frame's noise over that of a step to the next frame: lips go their whole way in two or three frames."""
_FORGOTTEN: Final = 1e-6  # keeps weights at 0 where no frame says anything


class ExpressionBasis(NamedTuple):
    """What landmarks do about their mean: `weights` @ `directions`.

    Attributes:
        directions: orthonormal over all their numbers, largest share of the motion first.
        weights: decimetre.
    """

    directions: Float[np.ndarray, "K L 3"]
    weights: Float[np.ndarray, "T K"]

    def motion(
        self, frames: slice | np.ndarray = slice(None), landmarks: slice | np.ndarray = slice(None)
    ) -> Float[np.ndarray, "F M 3"]:
        """Displacements of some landmarks in some frames, decimetre."""
        return np.tensordot(self.weights[frames], self.directions[:, landmarks], axes=1)


def fit_expressions(motion: Float[np.ndarray, "T L 3"], found: Bool[np.ndarray, "T"]) -> ExpressionBasis:
    """The basis that explains 98 % of the motion, or its 24 largest directions; frames that were not `found` say nothing."""
    flat = motion.reshape(len(motion), -1)
    seen = np.flatnonzero(found)
    chosen = seen[np.linspace(0, len(seen) - 1, min(len(seen), _FITTED_FRAMES)).astype(int)]
    observed = flat[chosen].astype(np.float64)
    squares, combinations = np.linalg.eigh(observed @ observed.T)  # fewer frames than numbers in each
    squares, combinations = np.maximum(squares[::-1], 0), combinations[:, ::-1]
    share = np.cumsum(squares) / max(float(squares.sum()), np.finfo(float).tiny)
    count = min(int(np.searchsorted(share, _EXPLAINED)) + 1, _MAX_DIRECTIONS, len(squares))
    directions = combinations[:, :count].T @ observed
    basis = (directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), np.finfo(float).tiny)).astype(
        np.float32
    )
    return ExpressionBasis(basis.reshape(count, *motion.shape[1:]), _walk(flat @ basis.T, found))


def _walk(weights: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The most probable random walk [T, K] of which `weights` are noisy sights."""
    if len(weights) < 2:
        return weights.astype(np.float32)
    trust = found.astype(np.float64)
    system = np.zeros((2, len(weights)))
    system[0] = trust + _FORGOTTEN
    system[0, :-1] += _NOISE_OVER_STEP
    system[0, 1:] += _NOISE_OVER_STEP
    system[1, :-1] = -_NOISE_OVER_STEP
    return solveh_banded(system, trust[:, None] * weights, lower=True).astype(np.float32)
