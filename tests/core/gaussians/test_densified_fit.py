"""Densification with what a renderer gives it."""

import torch
from torch import Tensor

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.densification import Densifier
from gensync_core.gaussians.densify_params import DensifyParams
from gensync_core.gaussians.rasterize import Backend, RasterResult, rasterize

RATES = {"means": 1e-2, "quats": 1e-2, "log_scales": 2e-2, "logit_opacities": 5e-2, "sh": 5e-2}
PARAMS = DensifyParams(
    start=10, stop=90, every=10, reset_every=0, grow_grad2d=1e-3, grow_scale3d=0.1, prune_opacity=0.02, prune_scale3d=10.0,
    max_gaussians=250,
)  # fmt: skip
REFERENCE = Backend("reference", "cpu")


def camera(x: float) -> Tensor:
    world_to_camera = torch.eye(4)
    world_to_camera[0, 3], world_to_camera[2, 3] = -x, 4.0
    return world_to_camera


def draw(cloud: GaussianCloud, viewmats: Tensor, size: int = 48) -> RasterResult:
    intrinsics = torch.tensor([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]]).expand(len(viewmats), 3, 3)
    splats = (cloud.means, cloud.quats, cloud.scales, cloud.opacities, cloud.sh)
    return rasterize(*splats, viewmats, intrinsics, size, size, sh_degree=cloud.sh_degree, backend=REFERENCE)


def test_a_mean_loss_over_two_cameras_counts_as_two_steps_of_one():
    places = torch.tensor([[0.0, 0, 0], [0.8, 0, 0], [0, 0.5, 0.3], [50, 0, 0]])
    cloud = GaussianCloud.from_points(places, torch.full((4, 3), 0.7), scale=0.3)
    both, single = (Densifier(cloud, dict.fromkeys(RATES, 0.0), PARAMS) for _ in range(2))
    viewmats = torch.stack([camera(0.0), camera(0.4)])
    result = draw(both.cloud, viewmats)
    result.image.square().mean(dim=(1, 2, 3)).mean().backward()
    both.after_backward(1, result.screen, 48, 48)
    for step, viewmat in enumerate(viewmats):
        result = draw(single.cloud, viewmat[None])
        result.image.square().mean().backward()
        single.after_backward(step, result.screen, 48, 48)
    for name in ("statistics.grad2d", "statistics.count"):
        torch.testing.assert_close(both.state_tensors()[name], single.state_tensors()[name])
    assert both.state_tensors()["statistics.count"].tolist() == [2, 2, 2, 0], "the last one is out of sight"
    assert (both.state_tensors()["statistics.grad2d"][:3] > 0).all()


def fit(target: Tensor, params: DensifyParams | None, steps: int = 110) -> tuple[float, int]:
    """Fit a few Gaussians to an image; the loss at the end and their number."""
    generator = torch.Generator().manual_seed(1)
    places = torch.cat([torch.rand(40, 2, generator=generator) * 4 - 2, torch.zeros(40, 1)], dim=1)
    densifier = Densifier(GaussianCloud.from_points(places, torch.full((40, 3), 0.5), scale=0.3), RATES, params)
    loss = torch.zeros(())
    for step in range(steps):
        result = draw(densifier.cloud, camera(0.0)[None])
        loss = (result.image[0] - target).abs().mean()
        loss.backward()
        densifier.after_backward(step, result.screen, 48, 48)
    return loss.item(), len(densifier)


def test_an_image_of_fine_detail_is_fitted_better_with_densification():
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    checks = ((rows // 6 + columns // 6) % 2).float()
    target = torch.stack([checks, 1 - checks, rows / 48], dim=-1)
    (plain, plain_count), (refined, refined_count) = fit(target, None), fit(target, PARAMS)
    assert plain_count == 40
    assert 150 < refined_count <= 250
    assert refined < 0.6 * plain
