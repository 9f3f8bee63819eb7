"""Whether the mouth moves with the sound, measured without any hidden weights.

Apertures are inner-lip distance over inter-ocular distance, one value a frame; NaN marks frames without a face.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gensync_core.face.expression import inter_ocular
from gensync_core.face.regions import LIPS

_REFERENCE_PX = 512
_MIN_FRAMES = 3


class LandmarkDistance(NamedTuple):
    """Mean distance of mouth landmarks: `px512` in px of a 512 px frame, `iod` in inter-ocular distances."""

    px512: float
    iod: float


def landmark_distance(
    driven_px: Float[np.ndarray, "T 478 3"], true_px: Float[np.ndarray, "T 478 3"], resolution: int
) -> LandmarkDistance:
    """LMD: mouth landmarks of both, each mean-centred per frame, mean L2 distance over landmarks and frames.

    Mean-centring removes where the head is; what is left is the shape of the mouth.

    Args:
        driven_px: landmarks of the rendered frames, px; NaN frames do not count.
        true_px: landmarks of the true frames, px.
        resolution: side of the square frame, px.

    Source: LMD of Chen et al. 2018, as used by the papers; the mouth's landmarks are MediaPipe's 40.
    """
    driven, true = (_centred_mouth(points) for points in (driven_px, true_px))
    distance = np.linalg.norm(driven - true, axis=-1).mean(axis=1)
    relative = distance / inter_ocular(true_px)
    valid = np.isfinite(relative)
    if not valid.any():
        return LandmarkDistance(float("nan"), float("nan"))
    return LandmarkDistance(float(distance[valid].mean()) * _REFERENCE_PX / resolution, float(relative[valid].mean()))


def _centred_mouth(landmarks_px: np.ndarray) -> np.ndarray:
    mouth = landmarks_px[:, LIPS, :2].astype(np.float64)
    return mouth - mouth.mean(axis=1, keepdims=True)


def aperture_correlation(true: Float[np.ndarray, "T"], driven: Float[np.ndarray, "T"]) -> float:
    """Pearson r of two aperture curves over the frames where both are known.

    0 where the driven mouth does not move at all; NaN for fewer than three common frames or a truth that stands still.

    Raises:
        ValueError: the lengths differ.
    """
    if true.shape != driven.shape:
        raise ValueError(f"curves of unequal length: {true.shape} and {driven.shape}")
    both = np.isfinite(true) & np.isfinite(driven)
    if both.sum() < _MIN_FRAMES:
        return float("nan")
    a, b = true[both].astype(np.float64), driven[both].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    a_norm, b_norm = float(np.sqrt((a * a).sum())), float(np.sqrt((b * b).sum()))
    if a_norm < 1e-9:
        return float("nan")
    return 0.0 if b_norm < 1e-9 else float(np.clip((a * b).sum() / (a_norm * b_norm), -1, 1))


class Offset(NamedTuple):
    """Best alignment of driven to true aperture.

    Positive: the driven mouth is late. `frames` is the best whole shift, `subframe` its parabolic refinement,
    `correlation` the Pearson r at the whole shift.
    """

    frames: int
    subframe: float
    correlation: float


def offset_frames(true: Float[np.ndarray, "T"], driven: Float[np.ndarray, "T"], max_offset: int = 10) -> Offset | None:
    """Shift k in -max_offset..max_offset for which driven[t + k] follows true[t] best.

    k > 0 means that the driven mouth is late by k frames. Among equal correlations the smallest |k| wins. None where no
    shift has a correlation (too short, or nothing moves).
    """
    shifts = [k for k in range(-max_offset, max_offset + 1) if len(true) - abs(k) >= _MIN_FRAMES]
    scores = {k: aperture_correlation(*_overlap(true, driven, k)) for k in shifts}
    known = {k: r for k, r in scores.items() if np.isfinite(r) and r != 0}
    if not known:
        return None
    best = max(known, key=lambda k: (known[k], -abs(k)))
    subframe = float(best)
    if best - 1 in known and best + 1 in known:
        left, middle, right = known[best - 1], known[best], known[best + 1]
        curvature = left - 2 * middle + right
        subframe += 0.5 * (left - right) / curvature if curvature < 0 else 0.0
    return Offset(best, subframe, known[best])


def _overlap(true: np.ndarray, driven: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    length = len(true) - abs(shift)
    start = max(-shift, 0)
    return true[start : start + length], driven[start + shift : start + shift + length]


def chance_correlation(true: Float[np.ndarray, "T"], driven: Float[np.ndarray, "T"], min_shift: int) -> float:
    """Root mean square of r over all circular shifts of the driven curve by at least `min_shift` frames.

    That is how large a correlation of two such curves comes about by chance, in either sign; it grows as the segment
    gets short. NaN where no such shift exists.
    """
    shifts = range(min_shift, len(true) - min_shift + 1)
    scores = np.array([aperture_correlation(true, np.roll(driven, k)) for k in shifts])
    scores = scores[np.isfinite(scores)]
    return float(np.sqrt((scores**2).mean())) if len(scores) else float("nan")


def movement_ratio(still: Float[np.ndarray, "_"], speaking: Float[np.ndarray, "_"]) -> float:
    """Standard deviation of one aperture curve over another's: what is left of the movement when the sound is silent."""
    still, speaking = still[np.isfinite(still)], speaking[np.isfinite(speaking)]
    if not len(still) or not len(speaking) or speaking.std() < 1e-9:
        return float("nan")
    return float(still.std() / speaking.std())
