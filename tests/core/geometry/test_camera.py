import numpy as np
import torch

from gensync_core.geometry.camera import Intrinsics, invert_pose, pose_matrix, project, transform, unproject
from gensync_core.geometry.rotation import rotvec_to_matrix

RNG = np.random.default_rng(5)
CAMERA = Intrinsics(fx=300.0, fy=310.0, cx=64.0, cy=60.0, width=128, height=120)


def test_hand_worked_projection():
    pixels = project(np.array([[0.1, -0.2, 10.0], [0.0, 0.0, 3.0]], dtype=np.float32), CAMERA.matrix())
    np.testing.assert_allclose(pixels, [[67.0, 53.8], [64.0, 60.0]], rtol=1e-6)


def test_unproject_undoes_project():
    points = RNG.normal(size=(4, 9, 3)) + np.array([0, 0, 12])
    K = CAMERA.matrix().astype(np.float64)
    np.testing.assert_allclose(unproject(project(points, K), points[..., 2], K), points, atol=1e-9)
    tensor = torch.from_numpy(points)
    back = unproject(project(tensor, torch.from_numpy(K)), tensor[..., 2], torch.from_numpy(K))
    torch.testing.assert_close(back, tensor)


def test_inverse_pose_moves_points_back():
    pose = pose_matrix(rotvec_to_matrix(RNG.normal(size=(6, 3))), RNG.normal(size=(6, 3)))
    points = RNG.normal(size=(6, 11, 3))
    np.testing.assert_allclose(transform(transform(points, pose), invert_pose(pose)), points, atol=1e-9)
    np.testing.assert_allclose(invert_pose(pose) @ pose, np.broadcast_to(np.eye(4), (6, 4, 4)), atol=1e-9)


def test_a_resized_image_sees_the_same_rays():
    points = RNG.normal(size=(5, 3)) + np.array([0, 0, 9])
    small = CAMERA.scaled(64, 60)
    np.testing.assert_allclose(2 * project(points, small.matrix()), project(points, CAMERA.matrix()), rtol=1e-5)
