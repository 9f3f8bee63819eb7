import numpy as np
import pytest

from gensync_core.face.pose_equations import FRAMES_AT_ONCE, POSE_SIZE, aligned, banded, lift, point_jacobian, pose_jacobian
from gensync_core.geometry.rotation import rotvec_to_matrix

FOCAL = 320.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


def seen(points: np.ndarray) -> np.ndarray:
    return FOCAL * points[..., :2] / points[..., 2:]


def test_derivatives_are_those_of_small_steps(rng):
    """Coordinates come before points in what derivatives take and give; pixels [5, 2] are compared."""
    shape, place, step = rng.normal(size=(5, 3)), np.array([0.3, -0.2, 8.0]), 1e-6
    rotation = rotvec_to_matrix(np.array([0.2, -0.4, 0.1]))
    arms = shape @ rotation.T
    points = arms + place
    by_pose = pose_jacobian(arms.T[None], points.T[None], FOCAL)[0].T
    by_point = point_jacobian(points.T[None], rotation[None], FOCAL)[0].T
    for axis in np.eye(3) * step:
        index = int(axis.argmax())
        turned = arms @ rotvec_to_matrix(axis).T + place
        np.testing.assert_allclose(by_pose[..., index], (seen(turned) - seen(points)) / step, atol=1e-3)
        moved = (seen(points + axis) - seen(points)) / step
        np.testing.assert_allclose(by_pose[..., 3 + index], moved, atol=1e-3)
        shifted = (seen((shape + axis) @ rotation.T + place) - seen(points)) / step
        np.testing.assert_allclose(by_point[:, index], shifted, atol=1e-3)


def test_banded_storage_holds_the_lower_diagonals(rng):
    blocks = rng.normal(size=(3, POSE_SIZE, POSE_SIZE))
    storage = banded(blocks)
    for frame, row, column in ((0, 0, 0), (1, 5, 0), (2, 4, 3)):
        assert storage[row - column, frame * POSE_SIZE + column] == blocks[frame, row, column]
    assert not storage[POSE_SIZE:].any()


def test_alignment_undoes_a_similarity(rng):
    target, weights = rng.normal(size=(20, 3)), rng.uniform(size=20)
    shape = 1.3 * target @ rotvec_to_matrix(np.array([0.3, -0.2, 0.1])).T + np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(aligned(shape, target, weights), target, atol=1e-9)


def test_lifted_motion_reprojects_in_clips_longer_than_what_is_computed_at_once(rng):
    count = FRAMES_AT_ONCE + 3
    shape = rng.normal(size=(4, 3))
    rotations = rotvec_to_matrix(0.1 * rng.normal(size=(count, 3)))
    translations = np.array([0, 0, 9.0]) + 0.1 * rng.normal(size=(count, 3))
    true = shape + 0.02 * rng.normal(size=(count, 4, 3))
    pixels = seen(true @ rotations.swapaxes(1, 2) + translations[:, None])
    mean, motion = lift(pixels, shape, rotations, translations, FOCAL)
    again = seen((mean + motion) @ rotations.swapaxes(1, 2) + translations[:, None])
    assert np.abs(again - pixels).max() < 0.05
    assert np.abs(np.median(motion, axis=0)).max() < 0.01
