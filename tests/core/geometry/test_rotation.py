import numpy as np
import pytest
import torch

from gensync_core.geometry import rotation

RNG = np.random.default_rng(3)
ROTVECS = np.concatenate([RNG.normal(size=(40, 3)), np.zeros((1, 3)), np.eye(3) * 3.1, np.full((1, 3), 1e-9)])


def test_quarter_turn_about_z_takes_x_to_y():
    matrix = rotation.rotvec_to_matrix(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(matrix @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotation.matrix_to_quat(matrix), [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], atol=1e-12)


def test_round_trips_through_matrix_and_quaternion():
    matrices = rotation.rotvec_to_matrix(ROTVECS)
    np.testing.assert_allclose(rotation.quat_to_matrix(rotation.matrix_to_quat(matrices)), matrices, atol=1e-9)
    short = ROTVECS[np.linalg.norm(ROTVECS, axis=1) < np.pi]
    np.testing.assert_allclose(rotation.matrix_to_rotvec(rotation.rotvec_to_matrix(short)), short, atol=1e-7)
    np.testing.assert_allclose(rotation.quat_to_rotvec(rotation.rotvec_to_quat(short)), short, atol=1e-9)


def test_matrices_are_rotations():
    matrices = rotation.rotvec_to_matrix(ROTVECS)
    np.testing.assert_allclose(matrices @ matrices.swapaxes(-1, -2), np.broadcast_to(np.eye(3), matrices.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-9)


def test_torch_agrees_with_numpy_and_has_finite_gradient_at_zero():
    rotvecs = torch.from_numpy(ROTVECS).requires_grad_()
    quats = rotation.rotvec_to_quat(rotvecs)
    matrices = rotation.quat_to_matrix(quats)
    np.testing.assert_allclose(matrices.detach().numpy(), rotation.rotvec_to_matrix(ROTVECS), atol=1e-9)
    back = rotation.quat_to_matrix(rotation.matrix_to_quat(matrices))
    torch.testing.assert_close(back, matrices)
    (matrices.sum() + rotation.rotvec_to_matrix(rotvecs).sum()).backward()
    assert torch.isfinite(rotvecs.grad).all()


def test_quaternions_need_not_be_normalised():
    quats = RNG.normal(size=(7, 4))
    np.testing.assert_allclose(rotation.quat_to_matrix(quats), rotation.quat_to_matrix(-3 * quats), atol=1e-12)


def test_product_of_quaternions_is_the_product_of_matrices():
    a, b = RNG.normal(size=(2, 5, 4))
    product = rotation.quat_to_matrix(rotation.quat_multiply(a, b))
    np.testing.assert_allclose(product, rotation.quat_to_matrix(a) @ rotation.quat_to_matrix(b), atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_slerp_halves_the_shorter_arc(sign):
    start = rotation.rotvec_to_quat(np.array([0.2, -0.1, 0.4]))
    end = rotation.quat_multiply(rotation.rotvec_to_quat(np.array([0, 1.0, 0])), start)
    half = rotation.slerp(start, sign * end, np.array(0.5))
    expected = rotation.rotvec_to_matrix(np.array([0, 0.5, 0])) @ rotation.quat_to_matrix(start)
    np.testing.assert_allclose(rotation.quat_to_matrix(half), expected, atol=1e-9)
    assert rotation.angle_between(rotation.quat_to_matrix(start), rotation.quat_to_matrix(end)) == pytest.approx(1.0)
