"""Each decision of densification, by name, with made-up screen data."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gensync_core.artefacts import read_tensors, write_tensors
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.densification import Densifier
from gensync_core.gaussians.densify_params import DensifyParams
from gensync_core.gaussians.rasterize import ScreenData

RATES = {"means": 1e-2, "quats": 1e-3, "log_scales": 5e-3, "logit_opacities": 2e-2, "sh": 5e-3}
SIZE = 100  # px; a screen gradient of g per px counts as 50 g
LOW, HIGH = 0.0, 1.0
SMALL, LARGE = 0.05, 0.3
EVERY = 10


def make_params(**changes: float | int) -> DensifyParams:
    values = {
        "start": 0, "stop": 1000, "every": EVERY, "reset_every": 0, "grow_grad2d": 0.5, "grow_scale3d": 0.1,
        "prune_opacity": 0.05, "prune_scale3d": 10.0, "max_gaussians": 1000,
    }  # fmt: skip
    return DensifyParams(**{**values, **changes})  # type: ignore[arg-type]


def make_cloud(scales: list[float], opacities: list[float] | None = None, coefficients: int = 1) -> GaussianCloud:
    count, generator = len(scales), torch.Generator().manual_seed(0)
    return GaussianCloud(
        means=torch.randn(count, 3, generator=generator),
        quats=torch.randn(count, 4, generator=generator),
        log_scales=torch.tensor(scales).log()[:, None].repeat(1, 3),
        logit_opacities=torch.logit(torch.tensor(opacities or [0.5] * count)),
        sh=torch.randn(count, coefficients, 3, generator=generator),
    )


def screen(gradients: list[list[float]], seen: list[list[bool]] | None = None) -> ScreenData:
    """Screen data [C, N] with given gradients along x; all in sight unless `seen` says otherwise."""
    along_x = torch.tensor(gradients)
    radii = torch.full((*along_x.shape, 2), 3, dtype=torch.int32)
    if seen is not None:
        radii[~torch.tensor(seen)] = 0
    shift = torch.zeros(*along_x.shape, 2, requires_grad=True)
    shift.grad = torch.stack([along_x, torch.zeros_like(along_x)], dim=-1)
    return ScreenData(shift.detach().clone(), radii, along_x.clone(), shift)


def advance(densifier: Densifier, step: int, gradients: list[float], seen: list[bool] | None = None) -> None:
    """One step in which the attributes themselves get no gradient: only refinement changes them."""
    densifier.after_backward(step, screen([gradients], None if seen is None else [seen]), SIZE, SIZE)


def refine(cloud: GaussianCloud, gradients: list[float], seed: int = 0, step: int = EVERY, **changes: float | int) -> Densifier:
    densifier = Densifier(cloud, RATES, make_params(**changes), seed)
    advance(densifier, step, gradients)
    return densifier


def take_gradients(densifier: Densifier, factor: float = 1.0) -> None:
    """Give every element of every attribute a gradient of its own."""
    total = torch.zeros(())
    for _, tensor in densifier.cloud.named():
        total = total + (tensor * torch.arange(1.0, tensor.numel() + 1).view_as(tensor)).sum()
    (total * factor).backward()


def moments(densifier: Densifier) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in densifier.state_tensors().items() if "exp_avg" in name}


def assert_same(cloud: GaussianCloud, rows: list[int], other: GaussianCloud, other_rows: list[int]) -> None:
    for (name, tensor), (_, expected) in zip(cloud.named(), other.named(), strict=True):
        assert torch.equal(tensor[rows], expected[other_rows]), name


def test_small_gaussians_with_large_screen_gradient_are_duplicated():
    cloud = make_cloud([SMALL, SMALL, SMALL])
    refined = refine(cloud, [LOW, HIGH, LOW]).cloud
    assert_same(refined, [0, 1, 2, 3], cloud, [0, 1, 2, 1])


def test_large_ones_are_split_into_two_of_1_over_1_6_of_the_size():
    cloud = make_cloud([LARGE, LARGE, LARGE])
    refined = refine(cloud, [LOW, HIGH, LOW]).cloud
    assert len(refined) == 4
    assert_same(refined, [0, 1], cloud, [0, 2])
    torch.testing.assert_close(refined.scales[2:], torch.full((2, 3), LARGE / 1.6))
    for name in ("quats", "logit_opacities", "sh"):
        assert torch.equal(getattr(refined, name)[2:], getattr(cloud, name)[[1, 1]]), name
    distance = (refined.means[2:] - cloud.means[1]).norm(dim=1)
    assert ((distance > 0) & (distance < 5 * LARGE)).all()


def test_halves_are_drawn_from_the_gaussian_that_they_replace():
    count = 400
    cloud = make_cloud([LARGE] * count)
    half_turn_xy = torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5]).repeat(count, 1)  # x to y
    long_in_x = torch.tensor([LARGE, 1e-6, 1e-6]).log().repeat(count, 1)
    cloud = GaussianCloud(torch.zeros(count, 3), half_turn_xy, long_in_x, cloud.logit_opacities, cloud.sh)
    spread = refine(cloud, [HIGH] * count).cloud.means.std(dim=0)
    torch.testing.assert_close(spread, torch.tensor([0.0, LARGE, 0.0]), rtol=0.1, atol=1e-5)


def test_gaussians_with_small_screen_gradient_stay_as_they_are():
    cloud = make_cloud([SMALL, LARGE])
    just_below = 0.99 * 0.5 / (SIZE / 2)
    assert_same(refine(cloud, [just_below] * 2).cloud, [0, 1], cloud, [0, 1])
    assert len(refine(cloud, [just_below / 0.98] * 2)) == 4


def test_faint_ones_are_pruned():
    cloud = make_cloud([SMALL] * 4, [0.04, 0.06, 0.01, 0.9])
    assert_same(refine(cloud, [LOW] * 4).cloud, [0, 1], cloud, [1, 3])


def test_huge_ones_are_pruned_once_opacities_were_due_to_be_reset():
    cloud = make_cloud([SMALL, 20.0])
    assert len(refine(cloud, [LOW] * 2, step=EVERY, reset_every=15)) == 2
    assert len(refine(cloud, [LOW] * 2, step=2 * EVERY, reset_every=15)) == 1
    assert len(refine(cloud, [LOW] * 2, step=2 * EVERY, reset_every=0)) == 2


def test_opacity_reset_happens_every_reset_every_steps_and_only_clamps_downwards():
    densifier = Densifier(make_cloud([SMALL] * 3, [0.9, 0.08, 0.1]), RATES, make_params(reset_every=7, stop=22))
    reset_at = []
    for step in range(40):
        before = densifier.cloud.opacities.detach()
        advance(densifier, step, [LOW] * 3)
        after = densifier.cloud.opacities.detach()
        if not torch.equal(before, after):
            reset_at.append(step)
            torch.testing.assert_close(after, torch.tensor([0.1, 0.08, 0.1]))
            with torch.no_grad():
                densifier.cloud.logit_opacities[0] = 2.0
    assert reset_at == [7, 14, 21], "gsplat 1.5.3 by itself never resets"


def test_opacity_reset_zeroes_the_moments_of_opacities_only():
    densifier = Densifier(make_cloud([SMALL] * 3), RATES, make_params(reset_every=7))
    take_gradients(densifier)
    advance(densifier, 1, [LOW] * 3)
    before = moments(densifier)
    advance(densifier, 7, [LOW] * 3)
    for name, moment in moments(densifier).items():
        expected = torch.zeros_like(moment) if name.startswith("opacities") else before[name]
        assert torch.equal(moment, expected), name


def test_no_reset_where_reset_every_is_0():
    densifier = Densifier(make_cloud([SMALL], [0.9]), RATES, make_params(stop=30))
    for step in range(40):
        advance(densifier, step, [LOW])
    torch.testing.assert_close(densifier.cloud.opacities, torch.tensor([0.9]))


@pytest.mark.parametrize("coefficients", [1, 9])
def test_adam_moments_follow_their_gaussians(coefficients: int):
    # 0 pruned, 1 stays, 2 duplicated, 3 split, 4 stays.
    cloud = make_cloud([SMALL, SMALL, SMALL, LARGE, SMALL], [0.01, 0.5, 0.5, 0.5, 0.5], coefficients)
    densifier = Densifier(cloud, RATES, make_params())
    take_gradients(densifier)
    advance(densifier, 1, [LOW] * 5)
    before = moments(densifier)
    assert len(before) == 2 * (5 if coefficients == 1 else 6)
    advance(densifier, EVERY, [LOW, LOW, HIGH, HIGH, LOW])
    for name, moment in moments(densifier).items():
        assert torch.equal(moment[:3], before[name][[1, 2, 4]]), name
        assert before[name][1:].abs().min() > 0, name


def test_new_gaussians_start_with_zero_moments():
    densifier = Densifier(make_cloud([SMALL, LARGE]), RATES, make_params())
    take_gradients(densifier)
    advance(densifier, 1, [LOW] * 2)
    advance(densifier, EVERY, [HIGH, HIGH])
    assert len(densifier) == 4, "one kept, its copy, two halves"
    for name, moment in moments(densifier).items():
        assert (moment[0] != 0).all(), name
        assert not moment[1:].any(), name


def test_training_goes_on_after_refinement():
    densifier = Densifier(make_cloud([SMALL, LARGE]), RATES, make_params())
    advance(densifier, EVERY, [HIGH, HIGH])
    before = densifier.cloud.detach().requires_grad(False)
    take_gradients(densifier)
    advance(densifier, EVERY + 1, [LOW] * 4)
    for (name, tensor), (_, old) in zip(densifier.cloud.named(), before.named(), strict=True):
        assert (tensor != old).all(), name


def test_never_grows_beyond_max_gaussians_and_the_largest_gradients_grow():
    cloud = make_cloud([SMALL, SMALL, LARGE, SMALL])
    densifier = refine(cloud, [0.5, 0.9, 0.8, 0.6], max_gaussians=6)
    assert_same(densifier.cloud, [0, 1, 2, 3], cloud, [0, 1, 3, 1])
    torch.testing.assert_close(densifier.cloud.scales[4:], torch.full((2, 3), LARGE / 1.6))
    for step in range(EVERY + 1, 5 * EVERY + 1):
        advance(densifier, step, [HIGH] * len(densifier))
        assert len(densifier) == 6


def test_a_cloud_that_starts_beyond_max_gaussians_keeps_what_it_has():
    assert len(refine(make_cloud([SMALL] * 5), [HIGH] * 5, max_gaussians=3)) == 5


def test_pruned_gaussians_make_room_for_others():
    densifier = refine(make_cloud([SMALL] * 4, [0.01, 0.5, 0.5, 0.5]), [HIGH] * 4, max_gaussians=4)
    assert len(densifier) == 3
    advance(densifier, 2 * EVERY, [HIGH] * 3)
    assert len(densifier) == 4


def test_same_seed_same_split():
    cloud = make_cloud([LARGE] * 3)
    means = refine(cloud, [HIGH] * 3, seed=1).cloud.means
    torch.rand(5)
    assert torch.equal(means, refine(cloud, [HIGH] * 3, seed=1).cloud.means)
    assert not torch.equal(means, refine(cloud, [HIGH] * 3, seed=2).cloud.means)
    assert not torch.equal(means, refine(cloud, [HIGH] * 3, seed=1, step=2 * EVERY).cloud.means)


def test_global_rng_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    refine(make_cloud([LARGE] * 3), [HIGH] * 3)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_same_ones_grow_and_its_rng_is_left_alone():
    cloud = make_cloud([SMALL, LARGE, SMALL, LARGE], [0.5, 0.5, 0.01, 0.5])
    on_cpu = refine(cloud, [HIGH, HIGH, LOW, LOW]).cloud
    densifiers = [Densifier(cloud.to("cuda"), RATES, make_params()) for _ in range(2)]
    torch.cuda.manual_seed(5)
    expected = torch.rand(4, device="cuda")
    torch.cuda.manual_seed(5)
    for densifier in densifiers:
        data = screen([[HIGH, HIGH, LOW, LOW]])
        shift = torch.zeros(1, 4, 2, device="cuda", requires_grad=True)
        shift.grad = data.gradient.cuda() if data.gradient is not None else None
        densifier.after_backward(EVERY, ScreenData(data.means2d, data.radii.cuda(), data.depths, shift), SIZE, SIZE)
    assert torch.equal(torch.rand(4, device="cuda"), expected)
    first, second = (densifier.cloud.detach().to("cpu") for densifier in densifiers)
    assert_same(first, list(range(5)), second, list(range(5)))
    assert_same(first, [0, 1, 2], on_cpu, [0, 1, 2])


def test_no_refinement_before_start_or_after_stop():
    grown_at, densifier = [], Densifier(make_cloud([SMALL]), RATES, make_params(start=20, stop=50))
    for step in range(80):
        count = len(densifier)
        advance(densifier, step, [HIGH] * count)
        if len(densifier) != count:
            grown_at.append(step)
    assert grown_at == [30, 40]


def test_what_counts_is_the_mean_gradient_over_the_times_a_gaussian_was_seen():
    threshold = 0.5 / (SIZE / 2)
    densifier = Densifier(make_cloud([SMALL] * 4), RATES, make_params())
    for step in range(1, EVERY + 1):
        once = step == 3
        # 0: a little each time, in sum a lot; 1: seen once, large; 2: never seen; 3: large half of the time it was seen.
        gradients = [0.5 * threshold, 1.5 * threshold, HIGH, 2.5 * threshold * (step % 2)]
        advance(densifier, step, gradients, [True, once, False, True])
    assert len(densifier) == 6
    for copy, original in ((4, 1), (5, 3)):
        assert torch.equal(densifier.cloud.means[copy], densifier.cloud.means[original])


def test_statistics_start_anew_after_each_refinement():
    densifier = Densifier(make_cloud([SMALL]), RATES, make_params())
    advance(densifier, EVERY, [HIGH])
    advance(densifier, EVERY + 1, [LOW] * 2)
    advance(densifier, 2 * EVERY, [LOW] * 2)
    assert len(densifier) == 2


def test_learning_rates_that_the_caller_sets_survive_refinement():
    densifier = Densifier(make_cloud([SMALL]), RATES, make_params())
    densifier.scale_rates(0.5)
    advance(densifier, EVERY, [HIGH])
    before = densifier.cloud.means.detach().clone()
    densifier.cloud.means.sum().backward()
    advance(densifier, EVERY + 1, [LOW] * 2)
    torch.testing.assert_close(before - densifier.cloud.means, torch.full((2, 3), RATES["means"] * 0.5))


def test_higher_colour_coefficients_learn_at_a_twentieth_of_the_rate():
    cloud = make_cloud([SMALL], coefficients=4)
    densifier = Densifier(cloud, RATES)
    densifier.cloud.sh.sum().backward()
    advance(densifier, 0, [LOW])
    change = cloud.sh - densifier.cloud.sh
    torch.testing.assert_close(change[:, 0], torch.full((1, 3), RATES["sh"]))
    torch.testing.assert_close(change[:, 1:], torch.full((1, 3, 3), RATES["sh"] / 20), rtol=1e-4, atol=0)


def test_without_parameters_it_is_one_adam_over_all_attributes():
    cloud = make_cloud([SMALL, LARGE, LARGE])
    densifier, plain = Densifier(cloud, RATES), cloud.requires_grad()
    optimiser = torch.optim.Adam([{"params": [tensor], "lr": RATES[name]} for name, tensor in plain.named()], eps=1e-15)
    for step in range(30):
        for trained in (densifier.cloud, plain):
            sum((tensor - 0.1).square().sum() for _, tensor in trained.named()).backward()
        optimiser.step()
        optimiser.zero_grad()
        densifier.after_backward(step, screen([[HIGH] * 3]), SIZE, SIZE)
    assert_same(densifier.cloud, [0, 1, 2], plain, [0, 1, 2])


def test_a_restored_training_goes_on_exactly(tmp_path: Path):
    def train(densifier: Densifier, first: int, last: int) -> None:
        for step in range(first, last):
            take_gradients(densifier, factor=(-1.0) ** step)
            around_threshold = torch.rand(len(densifier), generator=torch.Generator().manual_seed(step)) * 0.02
            advance(densifier, step, around_threshold.tolist())

    cloud = make_cloud([SMALL, LARGE, LARGE], coefficients=4)
    whole, first, second = (Densifier(cloud, RATES, make_params(), seed=3) for _ in range(3))
    train(whole, 0, 36)
    train(first, 0, 25)
    write_tensors(tmp_path / "state.safetensors", {name: tensor.numpy() for name, tensor in first.state_tensors().items()})
    arrays, _ = read_tensors(tmp_path / "state.safetensors")
    second.restore({name: torch.from_numpy(array) for name, array in arrays.items()})
    train(second, 25, 36)
    assert len(whole) > len(first) > len(cloud)
    for name, tensor in whole.state_tensors().items():
        assert torch.equal(tensor, second.state_tensors()[name]), name


def test_screen_data_that_cannot_be_right_is_refused():
    densifier = Densifier(make_cloud([SMALL] * 2), RATES, make_params())
    with pytest.raises(ValueError, match="3 Gaussians, the cloud 2"):
        advance(densifier, 0, [LOW] * 3)
    without = screen([[LOW] * 2])._replace(shift=None)
    with pytest.raises(ValueError, match="no gradient"):
        densifier.after_backward(0, without, SIZE, SIZE)
    Densifier(make_cloud([SMALL] * 2), RATES).after_backward(0, without, SIZE, SIZE)


@pytest.mark.parametrize(
    "change",
    [{"start": -1}, {"every": 0}, {"reset_every": -1}, {"grow_grad2d": 0.0}, {"prune_opacity": 0.5}, {"max_gaussians": 0}],
)
def test_parameters_out_of_range_are_refused(change: dict):
    with pytest.raises(ValueError, match=next(iter(change))):
        make_params(**change)
