"""Colours by direction of view, and the oracle's projection, against gsplat's own plain torch code (which runs on a CPU)."""

import pytest
import torch
from gsplat.cuda import _torch_impl as gsplat_torch
from torch import Tensor

from gensync_core.gaussians.backends import reference
from gensync_core.gaussians.spherical_harmonics import SH_C0, basis, view_colors


def random_views(count: int, generator: torch.Generator) -> Tensor:
    """World to camera [C, 4, 4], turned and moved at random."""
    viewmats = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    quats = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    viewmats[:, :3, :3] = reference.rotation_matrices(quats)
    viewmats[:, :3, 3] = torch.randn(count, 3, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 0.0, 4.0])
    return viewmats


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_colors_and_their_gradients_equal_those_of_gsplat(degree):
    sh, means = normal(50, 9, 3).requires_grad_(), normal(50, 3, seed=1).requires_grad_()
    viewmats = random_views(3, torch.Generator().manual_seed(2))
    upstream = normal(3, 50, 3, seed=3)

    centres = torch.linalg.inv(viewmats)[:, :3, 3]
    directions = means - centres[:, None]
    expected = torch.clamp_min(gsplat_torch._spherical_harmonics(degree, directions, sh.expand(3, -1, -1, -1)) + 0.5, 0.0)
    expected_gradients = torch.autograd.grad((expected * upstream).sum(), (sh, means), allow_unused=True)
    actual = view_colors(sh, means, viewmats, degree)
    actual_gradients = torch.autograd.grad((actual * upstream).sum(), (sh, means), allow_unused=True)

    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(actual_gradients[0], expected_gradients[0], rtol=1e-10, atol=1e-10)
    if degree == 0:
        assert actual_gradients[1] is None, "the same colour from everywhere"
        assert expected_gradients[1] is None
    else:
        assert actual_gradients[1] is not None
        torch.testing.assert_close(actual_gradients[1], expected_gradients[1], rtol=1e-10, atol=1e-10)


def test_coefficients_beyond_the_degree_do_not_count():
    sh, means, viewmats = normal(10, 9, 3), normal(10, 3, seed=1), random_views(2, torch.Generator().manual_seed(2))
    other = sh.clone()
    other[:, 4:] = 7.0
    assert torch.equal(view_colors(sh, means, viewmats, 1), view_colors(other, means, viewmats, 1))


def test_the_constant_harmonic_alone_is_a_plain_color():
    sh = (torch.tensor([[[0.2, 0.5, 0.9]]], dtype=torch.float64) - 0.5) / SH_C0
    colors = view_colors(sh, normal(1, 3), random_views(2, torch.Generator().manual_seed(0)), 0)
    torch.testing.assert_close(colors, torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).expand(2, 1, 3))


def test_colors_are_never_below_0():
    sh = torch.full((1, 1, 3), -10.0, dtype=torch.float64, requires_grad=True)
    colors = view_colors(sh, normal(1, 3), random_views(1, torch.Generator().manual_seed(0)), 0)
    assert (colors == 0).all()
    colors.sum().backward()
    assert sh.grad is not None
    assert (sh.grad == 0).all()


def test_the_basis_is_orthonormal_over_all_directions():
    """Integrals by a product rule that is exact for polynomials of this degree."""
    nodes = torch.tensor([-((3 / 5) ** 0.5), 0.0, (3 / 5) ** 0.5], dtype=torch.float64)
    weights = torch.tensor([5 / 9, 8 / 9, 5 / 9], dtype=torch.float64)
    turns = torch.arange(8, dtype=torch.float64) * torch.pi / 4
    z, angle = torch.meshgrid(nodes, turns, indexing="ij")
    radius = (1 - z * z).sqrt()
    values = basis(torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1), 2)
    products = torch.einsum("zak,zal,z->kl", values, values, weights) * torch.pi / 4
    torch.testing.assert_close(products, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", [-1, 3])
def test_other_degrees_are_refused(degree):
    with pytest.raises(ValueError, match="sh_degree"):
        basis(normal(4, 3), degree)


def test_too_few_coefficients_are_refused():
    with pytest.raises(ValueError, match="sh_degree 2 needs"):
        view_colors(normal(5, 4, 3), normal(5, 3), torch.eye(4, dtype=torch.float64)[None], 2)


@pytest.mark.parametrize("seed", range(10))
def test_the_oracle_projects_as_gsplat_does(seed):
    generator = torch.Generator().manual_seed(seed)
    means, quats, scales = normal(200, 3, seed=seed), normal(200, 4, seed=seed + 100), normal(200, 3, seed=seed + 200).exp()
    viewmat = random_views(1, generator)
    width, height = 70, 50
    k = torch.tensor([[60.0, 0, 30.0], [0, 75.0, 28.0], [0, 0, 1]], dtype=torch.float64)
    covariances3d, _ = gsplat_torch._quat_scale_to_covar_preci(quats, scales * 0.1, compute_preci=False)
    assert covariances3d is not None
    _, expected_means2d, expected_depths, expected_conics, _ = gsplat_torch._fully_fused_projection(
        means, covariances3d, viewmat, k[None], width, height
    )
    means2d, covariances, depths = reference.project(means, quats, scales * 0.1, viewmat[0], k, width, height)
    conics = torch.linalg.inv(covariances)
    conics = torch.stack([conics[:, 0, 0], conics[:, 0, 1], conics[:, 1, 1]], 1)
    torch.testing.assert_close(depths, expected_depths[0], rtol=1e-10, atol=1e-12)
    seen = depths > 0.01
    assert seen.sum() > 100
    torch.testing.assert_close(means2d[seen], expected_means2d[0][seen], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(conics[seen], expected_conics[0][seen], rtol=1e-6, atol=1e-9)
