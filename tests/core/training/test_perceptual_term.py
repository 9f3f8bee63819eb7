"""The perceptual term in the training loop: when it is counted, what it draws, and that it survives an interruption."""

from dataclasses import replace

import pytest
import torch
from made_up_training import FIT, LOSSES, network_of, trainee_of
from torch import Tensor

from gensync_core.dataset.sampler import Choice
from gensync_core.gaussians.rasterize import Backend
from gensync_core.training import batch_loss
from gensync_core.training import fit as fit_module
from gensync_core.training.batch_loss import BatchLoss
from gensync_core.training.fit import Fit

STEPS = 5
"""The last of them is the last fifth."""


def squared(images: Tensor, targets: Tensor) -> Tensor:
    return (images - targets).square().mean((1, 2, 3))


def fit_of(weight: float) -> Fit:
    params = replace(FIT, steps=STEPS, torso_steps=1)
    trainees = [trainee_of(0), trainee_of(1)]
    return Fit(network_of(), trainees, params, replace(LOSSES, perceptual=weight), Backend("cpu", "cpu"), 5, train_shared=True)


@pytest.fixture(autouse=True)
def weights_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_loss, "load_lpips", lambda _: squared)


def test_it_is_counted_in_the_last_fifth_of_the_steps_on_heads_alone() -> None:
    batch = [Choice(0, 3), Choice(1, 4)]
    one, two, off = fit_of(1.0).objective, fit_of(2.0).objective, fit_of(0.0).objective
    for step in range(STEPS):
        (total, parts), (double, _), (without, _) = (objective(step, batch, False) for objective in (one, two, off))
        assert ("perceptual" in parts) == (step == STEPS - 1)
        expected = parts.get("perceptual", 0.0)
        assert total.item() == pytest.approx(without.item() + expected, rel=1e-5)
        assert double.item() == pytest.approx(without.item() + 2 * expected, rel=1e-5)
    assert "perceptual" not in one(STEPS, batch, True)[1]


def test_no_weights_are_loaded_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(batch_loss, "load_lpips", refuse)
    fit_of(0.0)
    with pytest.raises(AssertionError, match="loaded"):
        fit_of(0.1)


def test_each_image_of_a_step_has_a_draw_of_its_own_that_depends_on_seed_and_step_alone() -> None:
    one, again = fit_of(1.0).objective, fit_of(1.0).objective
    draws = {step: [look.draw for look in one._looks(step, 3) if look] for step in (STEPS - 1, STEPS)}
    assert len({draw for drawn in draws.values() for draw in drawn}) == 6
    assert all(0 <= number < 1 for drawn in draws.values() for draw in drawn for number in draw)
    assert [look.draw for look in again._looks(STEPS, 3) if look] == draws[STEPS]


def test_a_training_that_was_interrupted_in_the_last_fifth_ends_with_the_same_bits(tmp_path, monkeypatch) -> None:
    straight, forward = fit_of(0.5), BatchLoss.forward
    straight.run(tmp_path / "straight", "test")
    monkeypatch.setattr(fit_module, "_CHECKPOINT_INTERVAL_S", -1.0)

    def interrupted(self, step, batch, torso):
        if step == STEPS - 1:
            raise InterruptedError
        return forward(self, step, batch, torso)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(BatchLoss, "forward", interrupted)
        fit_of(0.5).run(tmp_path / "resumed", "test")
    resumed, off = fit_of(0.5), fit_of(0.0)
    assert resumed.run(tmp_path / "resumed", "test") == STEPS - 1
    off.run(tmp_path / "off", "test")
    for name, tensor in straight.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
    assert any(not torch.equal(tensor, off.tensors()[name]) for name, tensor in straight.tensors().items())
    assert straight.log.rows == resumed.log.rows
    assert not any("lpips" in name for name in straight.tensors())
