"""How much landmarks tremble from frame to frame."""

import numpy as np
from jaxtyping import Float


def landmark_jitter(landmarks_px: Float[np.ndarray, "T P _"]) -> float:
    """Mean length of the second difference of the landmarks' image positions, px a frame squared.

    A still or steadily moving face has 0; frames without landmarks (NaN) and their neighbours do not count. NaN for
    fewer than three frames. Compare with the value of the true footage: natural motion is not 0 either.
    """
    points = landmarks_px[..., :2].astype(np.float64)
    if len(points) < 3:
        return float("nan")
    second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1)
    valid = np.isfinite(second)
    return float(second[valid].mean()) if valid.any() else float("nan")


def jitter_ratio(driven_px: Float[np.ndarray, "T P _"], true_px: Float[np.ndarray, "T P _"]) -> float:
    """Jitter of the driven landmarks over that of the truth: 1 trembles as the footage does, above 1 more."""
    true = landmark_jitter(true_px)
    return landmark_jitter(driven_px) / true if true > 0 else float("nan")
