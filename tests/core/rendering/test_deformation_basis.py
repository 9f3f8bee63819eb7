import pytest
import torch

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.geometry.motion import Motion
from gensync_core.rendering import deformation_basis
from gensync_core.rendering.deformation import Conditions
from gensync_core.rendering.deformation_basis import fit_basis

RANK, GAUSSIANS = 5, 60


class LinearLayer:
    """Outputs that are linear in the first RANK numbers of the audio code, and of nothing else, but for `bend`."""

    attributes = ("logit_opacities", "means")

    def __init__(self, bend: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.cloud = GaussianCloud.from_points(torch.randn(GAUSSIANS, 3, generator=generator), torch.rand(GAUSSIANS, 3), 0.1)
        self.steps, self.weights = torch.tensor([1.0, 0.1, 0.2, 0.3]), torch.tensor([1.0, 4.0, 4.0, 4.0])
        self.rest = torch.randn(GAUSSIANS, 4, generator=generator)
        self.directions = torch.randn(RANK, GAUSSIANS, 4, generator=generator)
        self.bent, self.bend = torch.randn(GAUSSIANS, 4, generator=generator), bend

    def outputs(self, conditions: Conditions, chosen: torch.Tensor) -> torch.Tensor:
        codes = conditions.audio[:, :RANK]
        straight = self.rest[chosen] + torch.tensordot(codes, self.directions[:, chosen], dims=1)
        return straight + self.bend * codes[:, 0, None, None] ** 2 * self.bent[chosen]


def conditions(count: int, seed: int) -> Conditions:
    audio = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    still = torch.eye(4).repeat(count, 1, 1)
    return Conditions(audio, Motion(still, still, torch.zeros(count, 6)))


def fitted(layer: LinearLayer, rank: int) -> deformation_basis.DeformationBasis:
    return fit_basis(layer, conditions(40, 1), rank, 12, torch.Generator().manual_seed(2))


@pytest.mark.parametrize("block", [2048, 17])
def test_exact_where_the_rank_suffices_however_the_gaussians_are_cut_into_blocks(block, monkeypatch):
    monkeypatch.setattr(deformation_basis, "_BLOCK", block)
    layer, held_out = LinearLayer(), conditions(6, 3)
    basis = fitted(layer, 32)
    assert basis.rank == RANK
    codes, residuals = basis.frame_codes(held_out)
    assert residuals.max() < 1e-5
    expected = layer.outputs(held_out, torch.arange(GAUSSIANS)) * layer.steps
    for cloud, moved in zip(basis.clouds(codes), expected, strict=True):
        torch.testing.assert_close(cloud.logit_opacities, layer.cloud.logit_opacities + moved[:, 0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(cloud.means, layer.cloud.means + moved[:, 1:], atol=1e-4, rtol=1e-4)
        assert cloud.quats is layer.cloud.quats
        assert cloud.means.is_contiguous()


def test_what_lies_outside_of_the_basis_shows_at_the_anchors():
    layer = LinearLayer(bend=0.05)
    basis, held_out = fitted(layer, RANK), conditions(20, 3)
    far = held_out._replace(audio=held_out.audio * 8)
    codes, residuals = basis.frame_codes(held_out)
    assert basis.frame_codes(far).residuals.mean() > 10 * residuals.mean()
    # The residual at the anchors tells the error of all.
    opacities = torch.stack([cloud.logit_opacities for cloud in basis.clouds(codes)])
    means = torch.stack([cloud.means for cloud in basis.clouds(codes)])
    reached = torch.cat([(opacities - layer.cloud.logit_opacities)[..., None], means - layer.cloud.means], dim=-1)
    errors = ((reached / layer.steps - layer.outputs(held_out, torch.arange(GAUSSIANS))) * layer.weights).square()
    assert torch.corrcoef(torch.stack([errors.mean((1, 2)).sqrt(), residuals]))[0, 1] > 0.9


def test_a_smaller_rank_is_kept_to_and_costs_accuracy():
    layer, held_out = LinearLayer(), conditions(20, 3)
    small = fitted(layer, 3)
    assert small.rank == 3
    assert small.frame_codes(held_out).residuals.min() > 0.1


def test_a_field_that_does_not_move_has_no_directions():
    layer = LinearLayer()
    layer.directions.zero_()
    basis = fitted(layer, 4)
    codes, residuals = basis.frame_codes(conditions(2, 3))
    assert residuals.max() < 1e-5
    expected = layer.cloud.means + layer.rest[:, 1:] * layer.steps[1:]
    for cloud in basis.clouds(codes):
        torch.testing.assert_close(cloud.means, expected, atol=1e-5, rtol=0)
