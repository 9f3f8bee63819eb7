import pytest
import torch

from gensync_core.training.checkpoint import Checkpoint, Diverged, discard_states
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.processes import Processes


def _training(fused=False):
    torch.manual_seed(0)
    weight = torch.randn(3, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": [weight], "lr": 0.1}], fused=fused)
    return weight, optimiser, MetricLog(every=2)


def _steps(weight, optimiser, log, steps):
    for step in steps:
        loss = ((weight - step) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        log.add(step, loss=loss.item())


@pytest.mark.parametrize("fused", [False, True])
def test_resumed_training_ends_bit_identical(tmp_path, fused):
    straight, optimiser, log = _training(fused)
    _steps(straight, optimiser, log, range(10))

    weight, optimiser, resumed_log = _training(fused)
    _steps(weight, optimiser, resumed_log, range(6))
    Checkpoint(tmp_path / "run", {"w": weight}, {"a": optimiser}, resumed_log, Processes()).save(6)

    weight, optimiser, resumed_log = _training(fused)
    checkpoint = Checkpoint(tmp_path / "run", {"w": weight}, {"a": optimiser}, resumed_log, Processes())
    assert checkpoint.restore() == 6
    _steps(weight, optimiser, resumed_log, range(6, 10))
    assert torch.equal(weight, straight)
    assert resumed_log.rows == log.rows


def test_damaged_state_starts_again(tmp_path):
    weight, optimiser, log = _training()
    checkpoint = Checkpoint(tmp_path / "run", {"w": weight}, {"a": optimiser}, log, Processes())
    assert checkpoint.restore() is None
    checkpoint.save(3)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-5])
    assert checkpoint.restore() is None


def test_a_state_that_is_not_finite_does_not_replace_a_good_one(tmp_path):
    weight, optimiser, log = _training()
    checkpoint = Checkpoint(tmp_path / "run", {"w": weight}, {"a": optimiser}, log, Processes())
    checkpoint.save(3)
    with torch.no_grad():
        weight[1] = torch.inf
    with pytest.raises(Diverged, match="w holds NaN"):
        checkpoint.save(4)
    assert checkpoint.restore() == 3
    assert torch.isfinite(weight).all()


def test_a_finished_job_removes_its_own_states_only(tmp_path):
    digest = "0123456789abcdef"
    for name in (f"adapt-ann-{digest}", f"adapt-ann-b-{digest}", "adapt-ann-notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint.safetensors").write_bytes(b"x")
    discard_states(tmp_path, "adapt-ann")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [f"adapt-ann-b-{digest}", "adapt-ann-notes"]
