"""The training loop on two made-up speakers: terms against their definitions, and bits that do not depend on interruptions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up_training import FIT, LOSSES, MODEL, SIZE_PX, fit_of, network_of, trainee_of
from PIL import Image
from torch import Tensor

from gensync_core.errors import TrainingFailed, UsageError
from gensync_core.face.regions import HEAD, Region
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.disentangling import swap_inconsistency
from gensync_core.model.gensync import pose_code
from gensync_core.training import fit as fit_module
from gensync_core.training.batch_loss import BatchLoss
from gensync_core.training.fit import Fit
from gensync_core.training.objective import motion_terms, region_mask
from gensync_core.training.processes import Processes


def test_region_mask_is_one_where_a_label_is_among_the_regions():
    labels = torch.arange(len(Region), dtype=torch.uint8).reshape(1, -1)
    expected = [float(label in {int(region) for region in HEAD}) for label in range(len(Region))]
    assert region_mask(labels, HEAD)[0].tolist() == expected
    assert region_mask(labels, HEAD).dtype == torch.float32


def test_motion_terms_equal_one_query_of_the_field_for_each_identity():
    network, trainee = network_of(), trainee_of(0)
    other, first = torch.randn(MODEL.identity_size), np.array([1, 4, 8])
    data, state, frames = trainee.data, trainee.state, torch.tensor([1, 2, 4, 5, 8, 9])
    terms = motion_terms(network, trainee, first, LOSSES, 0.5, torch.Generator().manual_seed(3), other)
    alone = motion_terms(network, trainee, first, LOSSES, 0.5, torch.Generator().manual_seed(3), None)
    conditions = data.upper_face[frames], pose_code(data.head_to_camera[frames], state.mean_pose)
    points = state.aligner.to_box(trainee.landmarks).expand(6, -1, -1)
    own, swapped = (
        network.deform_points(points, terms.audio, code.expand(6, -1), *conditions).means for code in (state.identity, other)
    )
    assert torch.equal(terms.audio, alone.audio)
    assert terms.parts["swap"] == pytest.approx(swap_inconsistency(own, swapped).mean().item(), rel=1e-4)
    assert terms.parts["motion"] == pytest.approx(alone.parts["motion"], rel=1e-5)
    assert terms.total.item() == pytest.approx(alone.total.item() + LOSSES.swap * terms.parts["swap"], rel=1e-5)


def _snapshot(fit: Fit) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in fit.tensors().items()}


def _different(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


def _break_at(fit: Fit, broken: dict[int, float], monkeypatch) -> list[int]:
    """The loss of some steps is multiplied by NaN, once each; returns the list into which the steps done are written."""
    forward, done = fit.objective.forward, []

    def breaking(step, batch, torso):
        loss, parts = forward(step, batch, torso)
        done.append(step)
        factor = broken.pop(step, 1.0)
        return loss * factor, {**parts, "loss": parts["loss"] * factor}

    monkeypatch.setattr(fit.objective, "forward", breaking)
    return done


@pytest.mark.fault("training twice, or killed and resumed")
def test_interrupted_training_ends_with_the_same_bits(tmp_path, monkeypatch):
    straight = fit_of()
    straight.run(tmp_path / "straight", "test")
    monkeypatch.setattr(fit_module, "_CHECKPOINT_INTERVAL_S", -1.0)
    killed, forward = fit_of(), BatchLoss.forward

    def interrupted(self, step, batch, torso):
        if step == 2:
            raise InterruptedError
        return forward(self, step, batch, torso)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(BatchLoss, "forward", interrupted)
        killed.run(tmp_path / "resumed", "test")
    resumed = fit_of()
    assert resumed.run(tmp_path / "resumed", "test") == 2
    assert _different(_snapshot(straight), _snapshot(resumed)) == set()
    assert straight.log.rows == resumed.log.rows
    same = set(_snapshot(straight)) - _different(_snapshot(straight), _snapshot(fit_of()))
    untrained = {"mean_identity", "mean", "std", "anchors", "body_anchors", "units", "halvings"}
    assert {name.rpartition(".")[2] for name in same} <= untrained


def test_a_loss_that_is_not_finite_goes_back_to_the_last_checkpoint_with_halved_rates(tmp_path, monkeypatch, caplog):
    fit = fit_of()
    done = _break_at(fit, {2: math.nan}, monkeypatch)
    fit.run(tmp_path / "job", "test")
    assert done == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert int(fit.halvings) == 1
    assert "the loss is nan at step 2; going on from step 0 with halved learning rates" in caplog.text
    assert fit.shared is not None
    last = 0.5 * 10.0**-0.5  # the second of two steps on torsos, which decay to a tenth
    assert fit.shared.param_groups[0]["lr"] == pytest.approx(FIT.grid_rate * FIT.torso_rate * last)
    assert {step for step, _, _ in fit.log.rows} == {6}


def test_a_gradient_that_is_not_finite_is_noticed_before_a_state_is_saved(tmp_path, monkeypatch):
    fit, poisoned = fit_of(), []

    def descend(loss, optimisers):
        optimisers[0].param_groups[0]["params"][0].data[0, 0] = math.nan if len(poisoned) < 1 else 0.0
        poisoned.append(1)

    monkeypatch.setattr(fit_module, "descend", descend)
    monkeypatch.setattr(fit_module, "_CHECKPOINT_INTERVAL_S", -1.0)
    fit.run(tmp_path / "job", "test")
    assert len(poisoned) == 1 + FIT.steps + FIT.torso_steps
    assert int(fit.halvings) == 1


def test_a_training_that_diverges_again_and_again_fails_and_says_so_when_it_is_run_again(tmp_path, monkeypatch):
    fit = fit_of()
    forward = fit.objective.forward
    monkeypatch.setattr(fit.objective, "forward", lambda *args: (forward(*args)[0], {"loss": math.inf}))
    with pytest.raises(TrainingFailed, match="the loss is inf at step 0, after the learning rates were halved 3 times"):
        fit.run(tmp_path / "job", "test")
    again = fit_of()
    monkeypatch.setattr(again.objective, "forward", lambda *args: (forward(*args)[0], {"loss": math.inf}))
    with pytest.raises(TrainingFailed):
        again.run(tmp_path / "job", "test")


def test_a_training_leaves_a_picture_of_truth_under_rendering(tmp_path):
    fit = fit_of()
    fit.run(tmp_path / "job", "test name")
    picture = np.asarray(Image.open(tmp_path / "previews" / "test-name.png"))
    assert picture.shape == (2 * SIZE_PX, 2 * SIZE_PX, 3)
    frames = [np.asarray(fit.trainees[0].data.frames[frame]) for frame in range(fit.trainees[0].data.num_train)]
    assert any((picture[SIZE_PX:, :SIZE_PX] == frame).all() for frame in frames)


def test_more_processes_than_images_is_an_error():
    with pytest.raises(UsageError, match="batch_size is 2 and there are 3 processes"):
        Fit(
            network_of(), [trainee_of(0)], FIT, LOSSES, Backend("cpu", "cpu"), 5, train_shared=True, processes=Processes(0, 3)
        )  # fmt: skip


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_the_aligner_is_trained_where_it_has_a_rate(tmp_path, rate):
    fit = fit_of(replace(FIT, aligner_rate=rate))
    before = [trainee.state.aligner.scale.detach().clone() for trainee in fit.trainees]
    fit.run(tmp_path / "job", "test")
    moved = [not torch.equal(trainee.state.aligner.scale, scale) for trainee, scale in zip(fit.trainees, before, strict=True)]
    assert moved == [rate > 0, rate > 0]
