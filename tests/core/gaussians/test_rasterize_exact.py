"""The cpu backend against the float64 oracle: every pixel and every gradient, no percentiles.

Thresholds make single pixels flip in any float32 renderer. So each scene is looked at in float64 first: pixels that lie
within rounding of a threshold are undecided; they are left out of the forward comparison and get no upstream gradient,
in both renderers. All others must agree. Both renderers get the same float32 numbers.
"""

import math
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gensync_core.gaussians.backends import reference
from gensync_core.gaussians.rasterize import Backend, RasterResult, rasterize

CPU = Backend("cpu", "cpu", 1)
ORACLE = Backend("reference", "cpu")
GRADIENTS = ("means", "quats", "scales", "opacities", "colors", "background", "screen")

# Largest absolute error of colour and alpha; norm of a gradient's error over the norm of the gradient.
FORWARD_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
# Kinds of scenes that the float32 kernels render less exactly, and what is asked of them instead:
# - walls: huge and opaque; the gradient is that of what shows through them, a thousandth of the light, while the backward
#   pass starts from a float32 image;
# - near_off: at the near plane of a camera that is 4 away from the origin; z = 0.01 is what is left of 4 - 3.99.
EXTREMES = {"walls": (1e-5, 1e-2), "near_off": (3e-4, 5e-3)}
KINDS = ("round", "mixed", "dense", "thin", "needles", "huge", "near")

ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN, NEAR = 1 / 255, 0.999, 1e-4, 0.01
# How far off float32 may be: alpha near 1/255 (relative), alpha near its clamp, and depths, in units of the numbers that
# were added up to get them.
ALPHA_MARGIN, CLAMP_MARGIN, DEPTH_MARGIN = 3e-4, 3e-6, 2.5e-7


class Scene(NamedTuple):
    """Gaussians, one camera and a background, all float32."""

    splats: dict[str, Any]
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    background: Tensor


class Comparison(NamedTuple):
    """What the cpu backend made of a scene, what it should be, and the errors by name."""

    forward: dict[str, float]
    gradients: dict[str, float]
    undecided: Tensor
    screen_gradient: Tensor
    actual: RasterResult
    expected: RasterResult


def random_scales(kind: str, count: int, generator: torch.Generator) -> Tensor:
    typical, spread = {
        "round": ([0.08, 0.08, 0.08], 0.2),
        "mixed": ([0.1, 0.1, 0.1], 1.0),
        "dense": ([0.5, 0.5, 0.5], 0.4),
        "thin": ([0.7, 0.01, 0.005], 0.4),
        "huge": ([3.0, 3.0, 3.0], 0.5),
        "near": ([0.001, 0.001, 0.001], 0.7),
        "needles": ([2.0, 0.01, 0.001], 0.5),
        "walls": ([5.0, 5.0, 5.0], 1.0),
        "near_off": ([0.001, 0.001, 0.001], 0.7),
    }[kind]
    return torch.tensor(typical) * torch.exp(spread * torch.randn(count, 3, generator=generator))


def random_scene(kind: str, count: int, width: int, height: int, focal: float, seed: int) -> Scene:
    """Seen from any side, at a distance of 4 or (near) on both sides of the near plane; some opacities are 0 or 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rotation, distance = reference.rotation_matrices(normal(1, 4))[0], torch.tensor([0.0, 0.0, 4.0])
    if kind == "near":
        distance = 0.01 * normal(3)
    if kind.startswith("near"):
        # Not so close to the plane that rounding would decide.
        log_depth = -1 + 3 * torch.rand(count, generator=generator)
        z = NEAR * torch.exp(torch.where(log_depth.abs() < 0.01, 0.01, log_depth))
        in_camera = torch.stack([0.4 * normal(count) * z, 0.4 * normal(count) * z, z], 1)
        means = ((in_camera.double() - distance) @ rotation.double()).float()
    else:
        means = 0.7 * normal(count, 3)
    opacities = torch.sigmoid(2 * normal(count))
    opacities[2::7], opacities[3::11] = 1.0, 0.0
    splats = {
        "means": means,
        "quats": normal(count, 4) * torch.exp(0.5 * normal(count, 1)),
        "scales": random_scales(kind, count, generator),
        "opacities": opacities * 0.15 if kind == "huge" else opacities,
        "colors": torch.rand(count, 3, generator=generator),
    }
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, distance
    f = focal * max(width, height)
    k = torch.tensor([[f, 0, 0.45 * width], [0, 1.1 * f, 0.55 * height], [0, 0, 1]])
    return Scene(splats, viewmat[None], k[None], width, height, torch.rand(3, generator=generator))


def undecided_pixels(scene: Scene) -> Tensor:
    """Pixels [H, W] where float32 rounding may decide otherwise than float64."""
    means, quats, scales, opacities = (scene.splats[name].double() for name in ("means", "quats", "scales", "opacities"))
    view, k, width, height = scene.viewmats[0].double(), scene.Ks[0].double(), scene.width, scene.height
    means2d, covariances, depths = reference.project(means, quats, scales, view, k, width, height)
    depth_margin = DEPTH_MARGIN * (means.abs() @ view[2, :3].abs() + view[2, 3].abs())
    order = torch.argsort(depths)
    order = order[depths[order] > NEAR]
    grid = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1).double() + 0.5
    offsets = means2d[order, None] - grid.reshape(1, -1, 2)
    distance2 = torch.einsum("mpi,mij,mpj->mp", offsets, torch.linalg.inv(covariances[order]), offsets)
    free_alpha = opacities[order, None] * torch.exp(-0.5 * distance2)

    undecided = (torch.log(free_alpha / ALPHA_MIN).abs() < ALPHA_MARGIN).any(0)
    undecided |= ((free_alpha - ALPHA_MAX).abs() < CLAMP_MARGIN).any(0)
    alpha = torch.where(free_alpha >= ALPHA_MIN, free_alpha.clamp(max=ALPHA_MAX), 0)
    # The closer alpha is to 1, the more its rounding changes the light that passes; not where it is clamped.
    steepness = torch.where(free_alpha < ALPHA_MAX, alpha / (1 - alpha), alpha)
    passing = torch.log(1 - alpha).cumsum(0)
    undecided |= ((passing - math.log(TRANSMITTANCE_MIN)).abs() < CLAMP_MARGIN * (1 + steepness.cumsum(0))).any(0)

    touched = free_alpha > ALPHA_MIN * (1 - ALPHA_MARGIN)
    ties = (depths[order, None] - depths[order]).abs() < depth_margin[order, None] + depth_margin[order]
    for one, other in ties.triu(1).nonzero().tolist():
        undecided |= touched[one] & touched[other]
    # The gradient has a kink where x/z or y/z reaches its limit.
    centre, size = k[:2, 2], torch.tensor([width, height])
    for limit in (-0.15 * size, 1.15 * size):
        at_limit = ((means2d[order] - limit).abs() < 1e-5 * (limit - centre).abs()).any(1)
        undecided |= touched[at_limit].any(0)
    if ((depths - NEAR).abs() < depth_margin).any():
        undecided[:] = True
    return undecided.reshape(height, width)


def render_and_differentiate(
    scene: Scene, backend: Backend, upstream: Tensor, **options: Any
) -> tuple[RasterResult, dict[str, Tensor]]:
    """`upstream` [H, W, 4 or 5]: of the image's channels, then of alpha. Gradients by the names in GRADIENTS."""
    dtype = torch.float64 if backend is ORACLE else torch.float32
    leaves = {name: value.to(dtype, copy=True).requires_grad_() for name, value in scene.splats.items()}
    background = scene.background.to(dtype, copy=True).requires_grad_()
    result = rasterize(
        **leaves, viewmats=scene.viewmats.to(dtype), Ks=scene.Ks.to(dtype), width=scene.width, height=scene.height,
        background=background, backend=backend, **options,
    )  # fmt: skip
    (torch.cat([result.image, result.alpha[..., None]], -1)[0] * upstream.to(dtype)).sum().backward()
    gradients = {name: leaf.grad for name, leaf in {**leaves, "background": background}.items()}
    gradients["screen"] = result.screen.gradient
    return result, {name: gradient for name, gradient in gradients.items() if gradient is not None}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; where that is 0, only 0 is right."""
    difference, norm = (actual.double() - expected).norm().item(), expected.norm().item()
    return difference / norm if norm > 0 else float("inf") if difference > 0 else 0.0


def compare(scene: Scene, seed: int, **options: Any) -> Comparison:
    """Render a scene with both backends, and differentiate a random sum over all decided pixels."""
    undecided = undecided_pixels(scene)
    num_channels = 5 if options.get("render_mode") == "RGB+D" else 4
    upstream = torch.randn(scene.height, scene.width, num_channels, generator=torch.Generator().manual_seed(seed))
    upstream[undecided] = 0
    actual, actual_gradients = render_and_differentiate(scene, CPU, upstream, **options)
    expected, expected_gradients = render_and_differentiate(scene, ORACLE, upstream, **options)
    forward = {
        name: torch.where(undecided[..., None], 0, theirs[0] - ours[0]).abs().max().item()
        for name, ours, theirs in (
            ("image", actual.image, expected.image), ("alpha", actual.alpha[..., None], expected.alpha[..., None]),
        )
    }  # fmt: skip
    # Alpha is rounded to 2^-24 near 1, and with it the light that reaches the background.
    rounding = 2**-24 * upstream[..., :3].abs().sum((0, 1))
    off = actual_gradients["background"].double() - expected_gradients["background"]
    actual_gradients["background"] = expected_gradients["background"] + (off.abs() - rounding).clamp_min(0)
    gradients = {name: relative_error(actual_gradients[name], expected_gradients[name]) for name in GRADIENTS}
    return Comparison(forward, gradients, undecided, actual_gradients["screen"], actual, expected)


def assert_equal(done: Comparison, forward_tolerance: float = FORWARD_TOLERANCE, tolerance: float = GRADIENT_TOLERANCE) -> None:
    for name, error in done.forward.items():
        assert error < forward_tolerance, f"{name} is off by {error:.2g}"
    for name, error in done.gradients.items():
        assert error < tolerance, f"the gradient to {name} is off by {error:.2g} of its norm"


def scenes_of(*kinds: str) -> st.SearchStrategy[tuple[Scene, int]]:
    return st.builds(
        lambda kind, count, width, height, focal, seed: (random_scene(kind, count, width, height, focal, seed), seed),
        st.sampled_from(kinds), st.integers(1, 60), st.integers(1, 48), st.integers(1, 48),
        st.sampled_from([0.5, 1.2, 3.0]), st.integers(0, 2**30),
    )  # fmt: skip


# No shrinking: scenes follow from a seed, a smaller one is no simpler.
def many(examples: int) -> settings:
    return settings(max_examples=examples, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate])


def test_every_pixel_and_gradient_equals_the_oracle_in_hundreds_of_random_scenes():
    undecided, seen = [], []

    @many(300)
    @given(scenes_of(*KINDS))
    def check(example):
        done = compare(*example)
        assert_equal(done)
        undecided.append(done.undecided.double().mean())
        seen.append(done.actual.alpha.mean() > 0.02)

    check()
    assert len(undecided) >= 300
    assert torch.stack(undecided).mean() < 0.005, "too many pixels are left out"
    assert sum(share > 0.1 for share in undecided) <= 6
    assert torch.stack(seen).double().mean() > 0.8, "too many images are empty"


@pytest.mark.parametrize("kind", EXTREMES)
def test_scenes_beyond_float32_are_near_the_oracle(kind):
    @many(40)
    @given(scenes_of(kind))
    def check(example):
        assert_equal(compare(*example), *EXTREMES[kind])

    check()


def one_splat_scene(width: int = 40, height: int = 36, **splats: Tensor | list) -> Scene:
    """A camera at the origin of the world and Gaussians in front of it, of which all that is not given is the same."""
    given_ = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in splats.items()}
    count = max((len(value) for value in given_.values()), default=1)
    defaults = {
        "means": [0.0, 0.0, 4.0], "quats": [1.0, 0.3, -0.2, 0.5], "scales": [0.3, 0.2, 0.1], "colors": [0.9, 0.5, 0.2],
    }  # fmt: skip
    filled = {name: torch.tensor(value).repeat(count, 1) for name, value in defaults.items()}
    filled["opacities"] = torch.full((count,), 0.8)
    k = torch.tensor([[45.0, 0, width / 2], [0, 45.0, height / 2], [0, 0, 1]])
    return Scene({**filled, **given_}, torch.eye(4)[None], k[None], width, height, torch.tensor([0.2, 0.5, 0.7]))


class TestEdgeCases:
    def test_one_gaussian(self):
        done = compare(one_splat_scene(), 0)
        assert_equal(done)
        assert done.actual.alpha.max() > 0.5

    @pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 33), (65, 31), (8, 32), (9, 64), (130, 3), (3, 130)])
    def test_sizes_that_tiles_do_not_divide(self, width, height):
        assert_equal(compare(random_scene("mixed", 40, width, height, 1.2, 11), 0))

    @pytest.mark.parametrize("z", [0.0099, NEAR * (1 - 1e-6), NEAR * (1 + 1e-6), 0.0101])
    def test_the_near_plane_cuts_at_a_hundredth(self, z):
        scene = one_splat_scene(means=[[0.0002, 0.0001, z], [0.0, 0.0, 2.0]], scales=[[2e-4, 3e-4, 1e-4], [0.3, 0.2, 0.1]])
        seen = z > NEAR
        assert (rasterize_on_cpu(scene).screen.radii[0, 0] > 0).all() == seen
        if abs(z - NEAR) > 1e-5:
            done = compare(scene, 0)
            assert_equal(done)
            assert (done.screen_gradient[0, 0].norm() > 0) == seen

    @pytest.mark.parametrize(
        "scales",
        [[1e-8, 2e-8, 3e-8], [0.3, 0.2, 1e-8], [1e-8, 0.3, 2e-8], [5.0, 1e-6, 1e-6], [1e-6, 5.0, 5.0], [50.0, 20.0, 30.0]],
        ids=str,
    )
    def test_degenerate_scales(self, scales):
        """Alone, and before others."""
        alone = one_splat_scene(scales=[scales])
        others = random_scene("mixed", 20, 40, 36, 1.2, 5)
        others.splats["scales"][::4] = torch.tensor(scales)
        for scene in (alone, others):
            done = compare(scene, 0)
            assert_equal(done)
            assert (done.actual.screen.radii[0, 0] > 0).all()

    @pytest.mark.parametrize("scale", [1e-8, 0.3, 50.0])
    def test_the_rotation_of_a_round_gaussian_has_no_gradient_but_rounding(self, scale):
        scene = one_splat_scene(scales=[[scale] * 3])
        upstream = torch.randn(36, 40, 4, generator=torch.Generator().manual_seed(0))
        _, gradients = render_and_differentiate(scene, CPU, upstream)
        assert gradients["quats"].norm() < 1e-5 * gradients["scales"].norm() * scale

    @pytest.mark.parametrize("side", [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, 1)], ids=str)
    @pytest.mark.parametrize(("past_border_px", "seen"), [(-3.0, True), (1.0, True), (4.0, True), (30.0, False)])
    def test_beside_the_border(self, side, past_border_px, seen):
        """A Gaussian that spans some 15 px, its centre so far outside of the image, and one in the middle."""
        half = torch.tensor([20.0, 18.0])
        centre = torch.tensor(side) * (half + past_border_px) * 4 / 45
        scene = one_splat_scene(means=[[*centre.tolist(), 4.0], [0.0, 0.0, 5.0]])
        done = compare(scene, 0)
        assert_equal(done)
        assert (done.actual.screen.radii[0, 0] > 0).all() == seen
        assert (done.screen_gradient[0, 0].norm() > 0) == seen

    @pytest.mark.parametrize("opacity", [0.0, 0.0039, 0.004, 0.9989, 0.9991, 1.0])
    def test_opacities_beside_the_thresholds(self, opacity):
        scene = random_scene("mixed", 30, 40, 36, 1.2, 3)
        scene.splats["opacities"][:] = opacity
        done = compare(scene, 0)
        assert_equal(done)
        assert (done.actual.alpha.max() > 0) == (opacity >= ALPHA_MIN)

    def test_behind_the_camera(self):
        scene = random_scene("mixed", 30, 40, 36, 1.2, 4)
        scene.viewmats[0, 2, 3] = -0.1
        done = compare(scene, 0)
        assert_equal(done)
        assert 0 < (done.actual.screen.radii[0, :, 0] > 0).sum() < 20


def rasterize_on_cpu(scene: Scene) -> RasterResult:
    return rasterize(
        **scene.splats, viewmats=scene.viewmats, Ks=scene.Ks, width=scene.width, height=scene.height, backend=CPU
    )  # fmt: skip


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_harmonics_of_every_degree_equal_the_oracle(degree):
    scene = random_scene("mixed", 40, 44, 33, 1.2, 21)
    coefficients = 0.4 * torch.randn(40, 9, 3, generator=torch.Generator().manual_seed(1))
    done = compare(scene._replace(splats={**scene.splats, "colors": coefficients}), 2, sh_degree=degree)
    assert_equal(done)


def test_depth_and_its_gradients_equal_the_oracle():
    done = compare(random_scene("mixed", 40, 44, 33, 1.2, 22), 3, render_mode="RGB+D")
    assert done.actual.image.shape[-1] == 4
    assert_equal(done, forward_tolerance=6 * FORWARD_TOLERANCE)  # depths are 4 to 6


@pytest.mark.parametrize("kind", KINDS)
def test_screen_data_equal_the_oracle(kind):
    done = compare(random_scene(kind, 60, 48, 40, 1.2, 23), 0)
    actual, expected = done.actual.screen, done.expected.screen
    seen = (actual.radii > 0).all(-1)
    assert seen.any()
    # The oracle counts a Gaussian as seen that reaches into the image but no centre of a pixel.
    assert (expected.radii[seen] > 0).all()
    assert (done.screen_gradient[~seen] == 0).all()
    assert (actual.radii[seen] - expected.radii[seen]).abs().max() <= 1
    torch.testing.assert_close(actual.means2d[seen].double(), expected.means2d[seen], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(actual.depths[seen].double(), expected.depths[seen], rtol=1e-6, atol=1e-6)


class TestUndecidedPixels:
    """What is left out must be what is at a threshold, and no more."""

    def test_alpha_at_its_least_and_at_its_clamp(self):
        for opacity, undecided in [(ALPHA_MIN, True), (1.01 * ALPHA_MIN, False), (0.999, True), (0.99, False)]:
            scene = one_splat_scene(width=1, height=1, opacities=[opacity], means=[[0.0, 0.0, 4.0]])
            assert undecided_pixels(scene).item() == undecided

    def test_the_last_light(self):
        for opacity, undecided in [(0.99, True), (0.98, False), (0.995, False)]:
            scene = one_splat_scene(1, 1, opacities=[opacity, opacity], means=[[0.0, 0.0, 4.0], [0.0, 0.0, 5.0]])
            assert undecided_pixels(scene).item() == undecided

    def test_depths_that_tie_where_both_are_seen(self):
        for z, x, undecided in [(4.0, 0.0, True), (4.0000005, 0.0, True), (4.001, 0.0, False), (4.0, 9.0, False)]:
            assert undecided_pixels(one_splat_scene(1, 1, means=[[0.0, 0.0, 4.0], [x, 0.0, z]])).item() == undecided
