"""The algebra of fitting a posed head to pixels: derivatives, banded normal equations, alignment of shapes, lifting into 3D.

Shapes: T frames, N points. Everything is float64. Coordinates come before points where derivatives are: the last axis is long.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Float

POSE_SIZE = 6
"""A small turn about the head's centre (rad), then a translation (dm)."""
FRAMES_AT_ONCE = 256
"""Derivatives of all frames of a long clip at once would take a gigabyte."""
_THREADS = 2
_BANDS = 3 * POSE_SIZE
_SPREAD_DM = np.array([0.1, 0.1, 0.03])

_Result = TypeVar("_Result")


def over_chunks(work: Callable[[slice], _Result], num_frames: int) -> list[_Result]:
    """What `work` says of all frames, `FRAMES_AT_ONCE` at a time, in order; two threads share the chunks."""
    parts = [slice(first, first + FRAMES_AT_ONCE) for first in range(0, num_frames, FRAMES_AT_ONCE)]
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        return list(threads.map(work, parts))


def point_jacobian(
    points: Float[np.ndarray, "T 3 N"], rotations: Float[np.ndarray, "T 3 3"], focal: float
) -> Float[np.ndarray, "T 2 3 N"]:
    """Derivative of pixels by points that `rotations` and a shift have brought to `points` in the camera's frame."""
    across, depth = points[:, :2], points[:, 2]
    turned = rotations[:, :2, :, None] - (across / depth[:, None])[:, :, None] * rotations[:, None, 2, :, None]
    return turned * (focal / depth)[:, None, None]


def pose_jacobian(
    arms: Float[np.ndarray, "T 3 N"], points: Float[np.ndarray, "T 3 N"], focal: float
) -> Float[np.ndarray, "T 6 2 N"]:
    """Derivative of pixels by a change of the pose; `arms` are the turned points, `points` the moved ones, too."""
    scale = focal / points[:, 2]
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    right, down, away = arms.swapaxes(0, 1)
    jacobian = np.zeros((len(points), POSE_SIZE, 2, points.shape[2]))
    jacobian[:, 0, 0], jacobian[:, 0, 1] = -x * down, -away - y * down
    jacobian[:, 1, 0], jacobian[:, 1, 1] = away + x * right, y * right
    jacobian[:, 2, 0], jacobian[:, 2, 1] = -down, right
    jacobian[:, 3, 0] = jacobian[:, 4, 1] = 1
    jacobian[:, 5, 0], jacobian[:, 5, 1] = -x, -y
    jacobian *= scale[:, None, None]
    return jacobian


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

    def explain_rest(shape: np.ndarray) -> None:
        def add(part: slice) -> None:
            motion[part] += _least_motion(seen_px[part], shape + motion[part], rotations[part], translations[part], focal)

        over_chunks(add, len(seen_px))

    explain_rest(shape)
    mean = np.stack([np.median(of_one, axis=0) for of_one in motion.swapaxes(0, 1)])  # one by one: it sorts a copy
    motion -= mean
    explain_rest(shape + mean)
    return shape + mean, motion


def _least_motion(
    seen_px: np.ndarray, shapes: np.ndarray, rotations: np.ndarray, translations: np.ndarray, focal: float
) -> np.ndarray:
    """What is to be added to `shapes` [F, N, 3]: S J^T (J S J^T)^-1 residuals, with S the squared spread."""
    points = shapes @ rotations.swapaxes(1, 2) + translations[:, None]
    depth = points[..., 2]
    x, y = points[..., 0] / depth, points[..., 1] / depth
    off_x, off_y = seen_px[..., 0] - focal * x, seen_px[..., 1] - focal * y
    spread = (rotations * _SPREAD_DM**2) @ rotations.swapaxes(1, 2)
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = spread.transpose(1, 2, 0)[..., None]
    # J S J^T over (focal / depth)^2, symmetric, and its inverse
    first, mixed, second = xx - x * (2 * xz - x * zz), xy - x * yz - y * (xz - x * zz), yy - y * (2 * yz - y * zz)
    share = depth / (focal * (first * second - mixed**2))
    along_x, along_y = (second * off_x - mixed * off_y) * share, (first * off_y - mixed * off_x) * share
    return (np.stack([along_x, along_y, -x * along_x - y * along_y], axis=-1) @ rotations) * _SPREAD_DM**2
