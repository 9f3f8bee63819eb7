"""The term that closes the mouth in silence."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from made_up_training import LOSSES, fit_of, network_of, trainee_of

from gensync_core.model.gensync import GenSync, pose_code
from gensync_core.training.objective import silence_term


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_closed_lips_are_those_of_the_least_open_training_frames():
    trainee = trainee_of(0)
    least = int(trainee.data.aperture[: trainee.data.num_train].argmin())
    assert torch.equal(trainee.closed, trainee.motion[least][trainee.lips])


def test_lips_that_close_cost_nothing_and_others_do(monkeypatch):
    network, trainee = network_of(), trainee_of(0)
    closed = trainee.state.aligner.motion_to_box(trainee.closed / trainee.unit)
    seen = []

    def deform(self, points, audio, *conditions):
        seen.append((points, audio))
        return SimpleNamespace(means=(closed + offset).expand(len(audio), -1, -1))

    monkeypatch.setattr(GenSync, "deform_points", deform)
    offset = torch.zeros(3)
    assert silence_term(network, trainee, _generator()).item() == pytest.approx(0, abs=1e-9)
    offset = torch.tensor([0.0, 0.01, 0.0])
    assert silence_term(network, trainee, _generator()).item() > 1e-4
    points, audio = seen[0]
    assert torch.equal(points[0], trainee.state.aligner.to_box(trainee.landmarks[trainee.lips]))
    heard = network.encode_audio(trainee.data.silence, torch.arange(len(trainee.data.silence)))
    assert all((row == heard).all(dim=1).any() for row in audio), "only silence is heard"


def test_training_with_the_term_quietens_the_lips_in_silence():
    def spread(weight: float) -> float:
        network, trainee = network_of(), trainee_of(0)
        trainee.closed.zero_()
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        for step in range(30):
            loss = weight * silence_term(network, trainee, torch.Generator().manual_seed(step))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        data, state, count = trainee.data, trainee.state, len(trainee.data.silence)
        with torch.no_grad():
            moved = network.deform_points(
                state.aligner.to_box(trainee.landmarks[trainee.lips])[None],
                network.encode_audio(data.silence, torch.arange(count)),
                state.identity.expand(count, -1),
                data.upper_face[:1].expand(count, -1),
                pose_code(data.head_to_camera[:1], state.mean_pose).expand(count, -1),
            ).means
        return moved.std(dim=0).mean().item()

    assert spread(1.0) < 0.5 * spread(0.0)


def test_a_step_counts_it_with_its_weight():
    loss: dict[float, float] = {}
    parts: dict[str, float] = {}
    for weight in (0.0, 2.0):
        objective = fit_of().objective
        objective.losses, parts = replace(LOSSES, silence=weight), {}
        loss[weight] = objective._motion(3, 0, 1, parts, 1).item()
        assert ("silence" in parts) is (weight > 0)
    assert loss[2.0] - loss[0.0] == pytest.approx(2 * parts["silence"], rel=1e-3)
