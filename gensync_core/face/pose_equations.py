"""The algebra of fitting a posed head to pixels: derivatives, banded normal equations, alignment of shapes, lifting into 3D.

Shapes: T frames, N points. Everything is float64.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

POSE_SIZE = 6
"""A small turn about the head's centre (rad), then a translation (dm)."""
FRAMES_AT_ONCE = 256
"""Derivatives of all frames of a long clip at once would take a gigabyte."""
_BANDS = 3 * POSE_SIZE
_SPREAD_DM = np.array([0.1, 0.1, 0.03])


def chunks(num_frames: int) -> Iterator[slice]:
    """Frames, `FRAMES_AT_ONCE` at a time."""
    for first in range(0, num_frames, FRAMES_AT_ONCE):
        yield slice(first, first + FRAMES_AT_ONCE)


def point_jacobian(points: Float[np.ndarray, "*batch 3"], focal: float) -> Float[np.ndarray, "*batch 2 3"]:
    """Derivative of pixels by points in the camera's frame."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    jacobian = np.zeros((*points.shape[:-1], 2, 3))
    jacobian[..., 0, 0] = jacobian[..., 1, 1] = focal / z
    jacobian[..., 0, 2] = -focal * x / z**2
    jacobian[..., 1, 2] = -focal * y / z**2
    return jacobian


def pose_jacobian(
    arms: Float[np.ndarray, "T N 3"], points: Float[np.ndarray, "T N 3"], focal: float
) -> Float[np.ndarray, "T N 2 6"]:
    """Derivative of pixels by a change of the pose; `arms` are the turned points, `points` the moved ones, too."""
    scale = focal / points[..., 2]
    x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
    right, down, away = arms[..., 0], arms[..., 1], arms[..., 2]
    jacobian = np.zeros((*points.shape[:-1], 2, POSE_SIZE))
    jacobian[..., 0, 0], jacobian[..., 1, 0] = -x * down, -away - y * down
    jacobian[..., 0, 1], jacobian[..., 1, 1] = away + x * right, y * right
    jacobian[..., 0, 2], jacobian[..., 1, 2] = -down, right
    jacobian[..., 0, 3] = jacobian[..., 1, 4] = 1
    jacobian[..., 0, 5], jacobian[..., 1, 5] = -x, -y
    return jacobian * scale[..., None, None]


def banded(blocks: Float[np.ndarray, "T 6 6"]) -> Float[np.ndarray, "18 _"]:
    """Lower banded storage [18, 6 T] of a block-diagonal matrix, with room for two more blocks below."""
    num_frames = len(blocks)
    storage = np.zeros((_BANDS, num_frames * POSE_SIZE))
    for column in range(POSE_SIZE):
        for row in range(column, POSE_SIZE):
            storage[row - column, column::POSE_SIZE] = blocks[:, row, column]
    return storage


def aligned(
    shape: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"], weights: Float[np.ndarray, "N"]
) -> Float[np.ndarray, "N 3"]:
    """`shape` turned, moved and scaled so that its rigid part lies on the target's.

    Source: Umeyama (1991).
    """
    share = weights / weights.sum()
    shape_mean, target_mean = share @ shape, share @ target
    source, goal = shape - shape_mean, target - target_mean
    left, singular, right = np.linalg.svd((goal * share[:, None]).T @ source)
    sign = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = (singular * sign).sum() / (share @ (source**2).sum(axis=1))
    return scale * source @ ((left * sign) @ right).T + target_mean


def lift(
    seen_px: Float[np.ndarray, "T N 2"],
    shape: Float[np.ndarray, "N 3"],
    rotations: Float[np.ndarray, "T 3 3"],
    translations: Float[np.ndarray, "T 3"],
    focal: float,
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "T N 3"]]:
    """The mean shape, and displacements about it that reproject onto the pixels (counted from the principal point).

    Of all displacements that explain a pixel the one is taken that is least likely to be depth: `_SPREAD_DM` says how far a
    landmark moves along each canonical axis.
    """
    motion = np.zeros((len(seen_px), *shape.shape), dtype=np.float32)
    for index in range(2):
        for part in chunks(len(seen_px)):
            motion[part] += _least_motion(seen_px[part], shape + motion[part], rotations[part], translations[part], focal)
        if index == 0:
            mean = np.median(motion, axis=0)
            shape = shape + mean
            motion -= mean
    return shape, motion


def _least_motion(
    seen_px: np.ndarray, shapes: np.ndarray, rotations: np.ndarray, translations: np.ndarray, focal: float
) -> np.ndarray:
    """What is to be added to `shapes` [F, N, 3]."""
    spread = _SPREAD_DM**2
    points = shapes @ rotations.swapaxes(1, 2) + translations[:, None]
    residuals = seen_px - focal * points[..., :2] / points[..., 2:]
    jacobian = point_jacobian(points, focal) @ rotations[:, None]
    spread_jacobian = spread[:, None] * jacobian.swapaxes(-1, -2)
    return (spread_jacobian @ np.linalg.solve(jacobian @ spread_jacobian, residuals[..., None]))[..., 0]
