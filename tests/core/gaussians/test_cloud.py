import numpy as np
import pytest
import torch

from gensync_core.gaussians.cloud import SH_C0, GaussianCloud


def random_cloud(count: int, coefficients: int = 1, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, 3), (count, 4), (count, 3), (count,), (count, coefficients, 3))
    return GaussianCloud(*(torch.randn(shape, generator=generator) for shape in shapes))


def test_activations():
    cloud = GaussianCloud(
        means=torch.zeros(2, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        log_scales=torch.tensor([[0.0, 1.0, -1.0]]).repeat(2, 1),
        logit_opacities=torch.tensor([0.0, 2.0]),
        sh=torch.tensor([[[0.0, 1.0, -1.0]], [[100.0, -100.0, 0.0]]]),
    )
    np.testing.assert_allclose(cloud.scales[0], [1, np.e, 1 / np.e], rtol=1e-6)
    np.testing.assert_allclose(cloud.opacities, [0.5, 1 / (1 + np.exp(-2))], rtol=1e-6)
    np.testing.assert_allclose(cloud.colors, [[0.5, 0.5 + SH_C0, 0.5 - SH_C0], [1, 0, 0.5]], rtol=1e-6)


def test_from_points_gives_what_was_asked_for():
    colors = torch.tensor([[0.1, 0.5, 0.9], [1.0, 0.0, 0.3]])
    cloud = GaussianCloud.from_points(torch.randn(2, 3), colors, scale=torch.tensor([0.1, 0.2]), opacity=0.7)
    torch.testing.assert_close(cloud.colors, colors)
    torch.testing.assert_close(cloud.scales, torch.tensor([[0.1] * 3, [0.2] * 3]))
    torch.testing.assert_close(cloud.opacities, torch.full((2,), 0.7))
    with pytest.raises(ValueError, match="positive"):
        GaussianCloud.from_points(torch.randn(2, 3), colors, scale=0.0)


@pytest.mark.parametrize(("coefficients", "degree"), [(1, 0), (4, 1), (9, 2), (16, 3)])
def test_degree_follows_from_the_number_of_coefficients(coefficients: int, degree: int):
    assert random_cloud(2, coefficients).sh_degree == degree
    with pytest.raises(ValueError, match="no degree"):
        _ = random_cloud(2, coefficients + 1).sh_degree


def test_another_degree_keeps_the_coefficients_that_both_have():
    cloud = random_cloud(3, 4)
    higher, lower = cloud.with_sh_degree(2), cloud.with_sh_degree(0)
    assert (higher.sh_degree, lower.sh_degree) == (2, 0)
    assert torch.equal(higher.sh[:, :4], cloud.sh)
    assert not higher.sh[:, 4:].any()
    assert torch.equal(lower.sh, cloud.sh[:, :1])
    assert torch.equal(higher.means, cloud.means)
    with pytest.raises(ValueError, match="negative"):
        cloud.with_sh_degree(-1)


def test_arrays_round_trip_with_a_prefix_and_neighbours():
    head, torso = random_cloud(5, 4), random_cloud(3, seed=1)
    arrays = head.to_arrays("head.") | torso.to_arrays("torso.")
    for cloud, prefix in ((head, "head."), (torso, "torso.")):
        back = GaussianCloud.from_arrays(arrays, prefix)
        for (name, tensor), (_, other) in zip(cloud.named(), back.named(), strict=True):
            assert torch.equal(tensor, other), name
    with pytest.raises(KeyError, match=r"hair\.means"):
        GaussianCloud.from_arrays(arrays, "hair.")


def test_cloud_from_arrays_does_not_share_their_memory():
    arrays = random_cloud(3).to_arrays()
    cloud = GaussianCloud.from_arrays(arrays)
    cloud.means.zero_()
    assert np.abs(arrays["means"]).max() > 0


def test_cat_keeps_order_and_refuses_mixed_colours():
    first, second = random_cloud(2), random_cloud(3, seed=1)
    joined = GaussianCloud.cat([first, second])
    assert len(joined) == 5
    assert torch.equal(joined.means[2:], second.means)
    with pytest.raises(ValueError, match="coefficients"):
        GaussianCloud.cat([first, random_cloud(2, 4)])


def test_requires_grad_makes_leaves_of_its_own():
    cloud = random_cloud(3)
    trained = cloud.requires_grad()
    (trained.scales.sum() + trained.opacities.sum() + trained.colors.sum()).backward()
    assert trained.log_scales.grad is not None
    assert trained.sh.grad is not None
    assert not cloud.log_scales.requires_grad


def test_shapes_that_do_not_fit_are_refused():
    cloud = random_cloud(3)
    with pytest.raises(Exception, match=r"quats|shape|type"):
        GaussianCloud(cloud.means, cloud.quats[:2], cloud.log_scales, cloud.logit_opacities, cloud.sh)
