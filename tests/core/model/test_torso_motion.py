import numpy as np
import torch

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.geometry.rotation import quat_to_matrix
from gensync_core.model.torso_motion import fit_torso_motion, move_torso

RNG = np.random.default_rng(0)


def test_a_linear_rule_is_found_again():
    rule, rest = RNG.normal(size=(12, 3)), np.array([0.3, -0.1, 0.02])
    codes = RNG.normal(size=(200, 12)) * np.linspace(0.01, 1, 12)
    motion = fit_torso_motion(codes, codes @ rule + rest).numpy()
    unseen = RNG.normal(size=(50, 12)) * np.linspace(0.01, 1, 12)
    error = unseen @ motion[:12] + motion[12] - (unseen @ rule + rest)
    assert np.abs(error).max() < 0.05 * np.abs(unseen @ rule).max()


def test_a_pose_that_never_changed_moves_nothing():
    codes = np.zeros((200, 12))
    motion = fit_torso_motion(codes, np.tile([0.3, -0.1, 0.02], (200, 1)))
    assert torch.allclose(motion[12], torch.tensor([0.3, -0.1, 0.02]))
    assert motion[:12].abs().max() < 1e-6


def test_too_few_frames_give_a_body_that_stands_still():
    assert torch.equal(fit_torso_motion(RNG.normal(size=(5, 12)), RNG.normal(size=(5, 3))), torch.zeros(13, 3))


def test_the_torso_turns_about_its_centre_and_its_gaussians_turn_with_it():
    cloud = GaussianCloud.from_points(torch.randn(20, 3), torch.rand(20, 3), 0.1)
    cloud.quats.copy_(torch.randn(20, 4))
    motion = torch.zeros(13, 3)
    motion[12] = torch.tensor([0.5, -0.2, 0.3])
    motion[4, 2] = 0.1  # roll of the body for the fifth number of the head's pose
    code, centre = torch.zeros(1, 12), torch.tensor([0.1, 1.0, 5.0])
    code[0, 4] = 2.0
    moved = move_torso(cloud, motion, code, centre)
    cos, sin = np.cos(0.5), np.sin(0.5)
    turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float32)
    expected = (cloud.means - centre) @ turn.T + centre + torch.tensor([0.5, -0.2, 0.0])
    torch.testing.assert_close(moved.means, expected)
    torch.testing.assert_close(quat_to_matrix(moved.quats), turn @ quat_to_matrix(cloud.quats))
    assert torch.equal(moved.log_scales, cloud.log_scales)
