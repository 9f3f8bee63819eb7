"""The door to the renderers: what it takes, what it refuses, what every backend does. Exactness: test_rasterize_exact."""

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from gensync_core.errors import UsageError
from gensync_core.gaussians.backends import gsplat_cuda
from gensync_core.gaussians.rasterize import Backend, RasterResult, choose_backend, rasterize
from gensync_core.gaussians.render_params import RenderParams

CPU = Backend("cpu", "cpu", 1)
ORACLE = Backend("reference", "cpu")
NAMES = ("means", "quats", "scales", "opacities", "colors")


def random_scene(count: int, seed: int, spread: float = 1.0, size: float = 0.1) -> dict[str, Any]:
    """Gaussians around the origin, in float64; cameras look at them from z = -4."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "means": normal(count, 3) * spread,
        "quats": normal(count, 4),
        "scales": torch.exp(0.6 * normal(count, 3)) * size,
        "opacities": torch.sigmoid(1.5 * normal(count)),
        "colors": torch.rand(count, 3, generator=generator, dtype=torch.float64),
    }


def camera(width: int, height: int, focal: float = 1.2, distance: float = 4.0) -> tuple[Tensor, Tensor]:
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[2, 3] = distance
    f = focal * max(width, height)
    k = torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], dtype=torch.float64)
    return viewmat[None], k[None]


def render(
    scene: dict[str, Tensor], viewmats: Tensor, Ks: Tensor, width: int, height: int, backend: Backend, **options: Any
) -> RasterResult:
    dtype = torch.float64 if backend.name == "reference" else torch.float32
    options = {name: value.to(dtype) if isinstance(value, Tensor) else value for name, value in options.items()}
    tensors = {name: tensor.to(dtype) for name, tensor in scene.items()}
    return rasterize(
        **tensors, viewmats=viewmats.to(dtype), Ks=Ks.to(dtype), width=width, height=height, backend=backend, **options
    )


def gradients(
    scene: dict[str, Tensor], width: int, height: int, backend: Backend, seed: int
) -> tuple[RasterResult, dict[str, Tensor]]:
    """Gradients of a random linear functional of image and alpha; background and screen included."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in scene.items()}
    background = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64).requires_grad_()
    result = render(leaves, *camera(width, height), width, height, backend, background=background)
    generator = torch.Generator().manual_seed(seed)
    g_image = torch.randn(height, width, 3, generator=generator).to(result.image.dtype)
    g_alpha = torch.randn(height, width, generator=generator).to(result.image.dtype)
    ((result.image[0] * g_image).sum() + (result.alpha[0] * g_alpha).sum()).backward()
    collected = {name: leaf.grad for name, leaf in {**leaves, "background": background}.items()}
    collected["screen"] = result.screen.gradient
    return result, {name: gradient for name, gradient in collected.items() if gradient is not None}


def assert_close_but_for_flips(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Nearly all entries agree. A few may not: rounding decides otherwise at a threshold (1/255, finished pixels)."""
    scale = expected.abs().max().clamp_min(1e-9)
    error = ((actual.double() - expected).abs() / scale).flatten()
    assert torch.quantile(error, 0.98) < tolerance
    assert error.max() < 0.05


def test_one_gaussian_has_the_brightness_of_the_formula():
    scene = {
        "means": torch.zeros(1, 3, dtype=torch.float64),
        "quats": torch.tensor([[2.0, 0, 0, 0]], dtype=torch.float64),
        "scales": torch.full((1, 3), 0.1, dtype=torch.float64),
        "opacities": torch.tensor([0.8], dtype=torch.float64),
        "colors": torch.tensor([[1.0, 0.5, 0.25]], dtype=torch.float64),
    }
    width = height = 33
    viewmats, Ks = camera(width, height)
    result = render(scene, viewmats, Ks, width, height, CPU)
    # 16.5 px is the centre of pixel 16; two pixels to the right the Gaussian has fallen by exp(-d^2 / 2 var).
    variance = (Ks[0, 0, 0].item() * 0.1 / 4) ** 2 + 0.3
    assert result.alpha[0, 16, 16].item() == pytest.approx(0.8, abs=1e-5)
    assert result.alpha[0, 16, 18].item() == pytest.approx(0.8 * math.exp(-2 / variance), abs=1e-5)
    assert result.image[0, 16, 16].tolist() == pytest.approx([0.8, 0.4, 0.2], abs=1e-5)
    assert result.screen.means2d[0, 0].tolist() == pytest.approx([16.5, 16.5], abs=1e-4)
    assert result.screen.radii[0, 0, 0].item() > 0


def test_nearer_gaussian_hides_the_other_whatever_their_order():
    scene = random_scene(2, seed=0)
    scene["means"] = torch.tensor([[0.0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    scene["scales"], scene["opacities"] = torch.full((2, 3), 0.5, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    scene["colors"] = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64)
    flipped = {name: tensor.flip(0) for name, tensor in scene.items()}
    for each in (scene, flipped):
        pixel = render(each, *camera(17, 17), 17, 17, CPU).image[0, 8, 8]
        assert pixel[1] > 0.99
        assert pixel[0] < 0.01


@pytest.mark.parametrize("backend", [CPU, ORACLE], ids=["cpu", "reference"])
class TestEdgeCases:
    def test_no_gaussians_show_the_background(self, backend):
        background = torch.tensor([0.1, 0.2, 0.3])
        result = render(random_scene(0, 0), *camera(20, 12), 20, 12, backend, background=background)
        assert result.image.shape == (1, 12, 20, 3)
        torch.testing.assert_close(result.image[0, 5, 5].float(), background)
        assert result.alpha.abs().max() == 0
        assert result.screen.radii.shape == (1, 0, 2)

    def test_no_gaussians_take_gradients(self, backend):
        _, collected = gradients(random_scene(0, 0), 9, 9, backend, 0)
        assert collected["means"].shape == (0, 3)

    def test_behind_the_camera_is_not_seen_and_gets_no_gradient(self, backend):
        scene = random_scene(30, 1)
        scene["means"][:, 2] = -4 - scene["means"][:, 2].abs()
        result, collected = gradients(scene, 16, 16, backend, 0)
        assert result.alpha.abs().max() == 0
        assert (result.screen.radii == 0).all()
        for name in NAMES:
            assert collected[name].abs().max() == 0, name

    def test_some_behind_the_camera_leave_the_others_alone(self, backend):
        front, behind = random_scene(20, 1, spread=0.5), random_scene(20, 2, spread=0.5)
        behind["means"][:, 2] -= 8
        both = {name: torch.cat([front[name], behind[name]]) for name in NAMES}
        view = camera(24, 24)
        torch.testing.assert_close(render(both, *view, 24, 24, backend).image, render(front, *view, 24, 24, backend).image)

    def test_opacity_0_is_invisible_and_1_is_finite(self, backend):
        scene = random_scene(40, 3)
        scene["opacities"] = torch.zeros(40, dtype=torch.float64)
        assert render(scene, *camera(20, 20), 20, 20, backend).alpha.abs().max() == 0
        scene["opacities"] = torch.ones(40, dtype=torch.float64)
        result, collected = gradients(scene, 20, 20, backend, 0)
        assert result.alpha.max() <= 1
        assert all(torch.isfinite(gradient).all() for gradient in collected.values())

    def test_huge_and_needle_thin_gaussians_are_finite(self, backend):
        scene = random_scene(30, 4)
        scene["scales"][:10] = 50.0
        scene["scales"][10:, 0], scene["scales"][10:, 1:] = 5.0, 1e-6
        result, collected = gradients(scene, 24, 24, backend, 0)
        assert torch.isfinite(result.image).all()
        assert all(torch.isfinite(gradient).all() for gradient in collected.values())

    def test_several_cameras_equal_one_after_the_other(self, backend):
        scene = random_scene(40, 6)
        viewmats, Ks = camera(24, 20)
        viewmats = viewmats.repeat(3, 1, 1)
        viewmats[:, 0, 3] = torch.tensor([-0.3, 0.0, 0.4])
        background = torch.rand(3, 3)
        together = render(scene, viewmats, Ks.repeat(3, 1, 1), 24, 20, backend, background=background)
        assert together.image.shape == (3, 20, 24, 3)
        assert together.screen.means2d.shape == (3, 40, 2)
        for i in range(3):
            alone = render(scene, viewmats[i : i + 1], Ks, 24, 20, backend, background=background[i])
            assert torch.equal(together.image[i], alone.image[0])

    def test_depth_is_the_fourth_channel(self, backend):
        scene = random_scene(1, 0, spread=0.0, size=1.0)
        scene["opacities"][:] = 0.9
        scene["means"].requires_grad_()
        result = render(scene, *camera(9, 9), 9, 9, backend, render_mode="RGB+D")
        assert result.image.shape == (1, 9, 9, 4)
        assert (result.image[0, 4, 4, 3] / result.alpha[0, 4, 4]).item() == pytest.approx(4.0, rel=1e-4)
        (gradient,) = torch.autograd.grad(result.image[..., 3].sum(), scene["means"])
        assert gradient[0, 2] != 0

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_values_that_are_not_finite_are_refused(self, backend, name, value):
        scene = random_scene(5, 0)
        scene[name].view(-1)[2] = value
        with pytest.raises(ValueError, match=f"{name} holds NaN or infinite"):
            render(scene, *camera(8, 8), 8, 8, backend)

    @pytest.mark.parametrize("name", NAMES)
    def test_wrong_shapes_are_refused(self, backend, name):
        scene = random_scene(5, 0)
        scene[name] = scene[name][..., None]
        with pytest.raises(ValueError, match=name):
            render(scene, *camera(8, 8), 8, 8, backend)

    def test_other_wrong_arguments_are_refused(self, backend):
        scene = random_scene(5, 0)
        viewmats, Ks = camera(8, 8)
        with pytest.raises(ValueError, match="background"):
            render(scene, viewmats, Ks, 8, 8, backend, background=torch.zeros(2, 3))
        with pytest.raises(ValueError, match="render_mode"):
            render(scene, viewmats, Ks, 8, 8, backend, render_mode="XYZ")
        with pytest.raises(ValueError, match="pixels"):
            render(scene, viewmats, Ks, 0, 8, backend)
        with pytest.raises(ValueError, match="Ks"):
            render(scene, viewmats.repeat(2, 1, 1), Ks, 8, 8, backend)


def test_same_bits_for_any_number_of_threads_and_every_time():
    scene = random_scene(3000, 7, size=0.05)
    runs = [gradients(scene, 130, 98, Backend("cpu", "cpu", threads), 0) for threads in (1, 2, 3, 1)]
    for result, collected in runs[1:]:
        assert torch.equal(result.image, runs[0][0].image)
        assert torch.equal(result.alpha, runs[0][0].alpha)
        for name, gradient in collected.items():
            assert torch.equal(gradient, runs[0][1][name]), name


def test_only_float32_and_no_gradient_to_cameras_on_the_cpu_backend():
    scene: dict[str, Any] = {name: tensor.float() for name, tensor in random_scene(3, 0).items()}
    viewmats, Ks = (tensor.float() for tensor in camera(8, 8))
    with pytest.raises(ValueError, match="float32"):
        rasterize(**random_scene(3, 0), viewmats=viewmats.double(), Ks=Ks.double(), width=8, height=8, backend=CPU)
    with pytest.raises(ValueError, match="viewmats"):
        rasterize(**scene, viewmats=viewmats.requires_grad_(), Ks=Ks, width=8, height=8, backend=CPU)


def test_the_kernels_are_vectorised():
    """Some ten times the torch oracle would be left of fifty or so if a loop lost its vectors."""
    scene = random_scene(4000, 1, spread=0.6, size=0.04)
    viewmats, Ks = camera(128, 128)

    def seconds(backend: Backend) -> float:
        leaves: dict[str, Any] = {name: tensor.float().requires_grad_() for name, tensor in scene.items()}
        start = time.process_time()
        result = rasterize(**leaves, viewmats=viewmats.float(), Ks=Ks.float(), width=128, height=128, backend=backend)
        result.image.sum().backward()
        return time.process_time() - start

    seconds(CPU)
    oracle = seconds(ORACLE)
    assert min(seconds(CPU) for _ in range(8)) * 12 < oracle


def test_gsplat_refuses_cpu_tensors_before_it_is_imported():
    scene: dict[str, Any] = {name: tensor.float() for name, tensor in random_scene(3, 0).items()}
    with pytest.raises(ValueError, match="CUDA"):
        gsplat_cuda.render(**scene, viewmats=torch.eye(4)[None], Ks=torch.eye(3)[None], width=8, height=8, shift=None)


class TestChoice:
    @pytest.mark.parametrize("changes", [{"backend": "vulkan"}, {"threads": 0}])
    def test_params_out_of_range(self, changes):
        with pytest.raises(ValueError, match=next(iter(changes))):
            RenderParams(**{"backend": "auto", "threads": 1, **changes})

    def test_named_backends(self, caplog):
        with caplog.at_level("INFO"):
            assert choose_backend(RenderParams(backend="cpu", threads=2)) == Backend("cpu", "cpu", 2)
        assert "cpu" in caplog.text
        assert choose_backend(RenderParams(backend="reference", threads=1)).name == "reference"

    def test_auto_takes_gsplat_only_where_it_can_run(self, monkeypatch):
        monkeypatch.setattr(gsplat_cuda, "why_not_available", lambda: None)
        assert choose_backend(RenderParams(backend="auto", threads=1)) == Backend("gsplat", "cuda", 1)
        monkeypatch.setattr(gsplat_cuda, "why_not_available", lambda: "no device")
        assert choose_backend(RenderParams(backend="auto", threads=1)).name == "cpu"
        with pytest.raises(UsageError, match="no device"):
            choose_backend(RenderParams(backend="gsplat", threads=1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gsplat_agrees_with_the_oracle():
    scene = random_scene(300, 2)
    viewmats, Ks = camera(64, 48)
    expected = render(scene, viewmats, Ks, 64, 48, ORACLE)
    on_gpu: dict[str, Any] = {name: tensor.float().cuda() for name, tensor in scene.items()}
    backend = choose_backend(RenderParams(backend="gsplat", threads=1))
    actual = rasterize(**on_gpu, viewmats=viewmats.float().cuda(), Ks=Ks.float().cuda(), width=64, height=48, backend=backend)
    assert_close_but_for_flips(actual.image.cpu(), expected.image, 1e-4)
    assert_close_but_for_flips(actual.alpha.cpu(), expected.alpha, 1e-4)
    assert actual.screen.radii.shape == expected.screen.radii.shape
