"""Trainings in processes of their own: shared out under torchrun, and killed at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_up_training
import numpy as np
import pytest

from gensync_core.artefacts import read_tensors
from gensync_core.training.processes import Processes

PROGRAM = [made_up_training.__file__]
ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _run(command: list[str], folder: Path, steps: int) -> tuple[dict[str, np.ndarray], dict]:
    subprocess.run([sys.executable, *command, str(folder), str(steps)], env=ENVIRONMENT, check=True, timeout=300)
    return read_tensors(folder / "trained.safetensors")


def test_every_item_belongs_to_one_process():
    items = list(range(7))
    shares = [Processes(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert Processes().share(items) == items


def test_two_processes_train_as_one_does(tmp_path):
    alone, meta = _run(PROGRAM, tmp_path / "alone", 8)
    together, meta_together = _run(
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *PROGRAM], tmp_path / "together", 8
    )
    curve, curve_together = ({(step, name): value for step, name, value in part["log"]} for part in (meta, meta_together))
    assert curve.keys() == curve_together.keys()
    for key, value in curve.items():
        assert curve_together[key] == pytest.approx(value, rel=1e-3, abs=1e-6), key
    # Attention does not change when all its logits are shifted: such biases have rounding for a gradient, and Adam makes whole
    # steps of it.
    for name, array in alone.items():
        if not name.endswith(("pooling.4.bias", "attention.key.bias")):
            assert np.abs(together[name].astype(float) - array).mean() < 5e-3, name


@pytest.mark.fault("training twice, or killed and resumed")
def test_a_training_killed_at_any_moment_ends_with_the_same_bits(tmp_path):
    steps = 60
    straight, _ = _run(PROGRAM, tmp_path / "straight", steps)
    folder, rng, starts = tmp_path / "killed", random.Random(7), 0
    state = folder / "scratch" / "job" / "checkpoint.safetensors"
    for _ in range(3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen([sys.executable, *PROGRAM, str(folder), str(steps), "0.05"], env=ENVIRONMENT)
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.005)  # it has to get on, or three kills are one
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        starts += process.wait() == -signal.SIGKILL
    assert starts == 3, "the training ended before it was killed: the test needs more steps"
    resumed, meta = _run(PROGRAM, folder, steps)
    assert meta["start"] > 0
    assert {name for name, array in straight.items() if not np.array_equal(array, resumed[name])} == set()
