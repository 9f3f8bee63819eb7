"""Resume states of a training, in a scratch folder keyed by a digest of its inputs.

Because every random choice is a function of (seed, step), parameters, optimiser states, the step and the log are all.
A state that is not finite is never saved, so the last one is always good.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensync_core.artefacts import read_tensors, write_tensors
from gensync_core.errors import ArtefactBroken
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.processes import Processes

_FILE = "checkpoint.safetensors"


class Diverged(Exception):
    """A loss or a trained tensor is not finite."""


class Checkpoint:
    """Saves and restores named tensors and optimisers; of several processes the first one does, for all.

    Args:
        folder: scratch folder of this very training (its name holds the digest of the inputs).
        tensors: everything that training changes in place.
        optimisers: by name.
        log: scalars so far.
        processes: of this training.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, Tensor],
        optimisers: Mapping[str, torch.optim.Optimizer],
        log: MetricLog,
        processes: Processes,
    ) -> None:
        self.path = folder / _FILE
        self.tensors, self.optimisers, self.log, self.processes = tensors, optimisers, log, processes

    def save(self, step: int) -> None:
        """Write the state after `step` steps, whole or not at all.

        Raises:
            Diverged: a tensor is not finite; the file stays what it was.
        """
        self.check()
        if not self.processes.is_first:
            return
        arrays = {f"tensor.{name}": tensor.detach().cpu().numpy() for name, tensor in self.tensors.items()}
        groups: dict[str, Any] = {}
        for name, optimiser in self.optimisers.items():
            state = optimiser.state_dict()
            groups[name] = [group["lr"] for group in state["param_groups"]]
            for index, slots in state["state"].items():
                for key, value in slots.items():
                    arrays[f"optimiser.{name}.{index}.{key}"] = np.asarray(torch.as_tensor(value).cpu())
        write_tensors(self.path, arrays, {"step": step, "learning_rates": groups, "log": json.dumps(self.log.state())})

    def check(self) -> None:
        """Raise `Diverged` if a tensor is not finite."""
        for name, tensor in self.tensors.items():
            if not torch.isfinite(tensor).all():
                raise Diverged(f"{name} holds NaN or infinite values")

    def restore(self) -> int | None:
        """Load the state if there is one; returns the number of steps done. A damaged state counts as none."""
        content = self.processes.from_first(self._read() if self.processes.is_first else None)
        if content is None:
            return None
        arrays, meta = content
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(torch.from_numpy(arrays[f"tensor.{name}"]))
        for name, optimiser in self.optimisers.items():
            state = optimiser.state_dict()
            state["state"] = _slots(arrays, f"optimiser.{name}.")
            for group, rate in zip(state["param_groups"], meta["learning_rates"][name], strict=True):
                group["lr"] = rate
            optimiser.load_state_dict(state)
        self.log.load_state(json.loads(meta["log"]))
        return int(meta["step"])

    def _read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        try:
            return read_tensors(self.path)
        except ArtefactBroken:
            return None


def discard_states(scratch: Path, job: str) -> None:
    """Remove the resume states of a finished job, folders named `<job>-<digest>`, and of no other job."""
    for folder in scratch.glob(f"{job}-*"):
        if re.fullmatch(re.escape(job) + "-[0-9a-f]{16}", folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _slots(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[int, dict[str, Tensor]]:
    slots: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        if name.startswith(prefix):
            index, key = name[len(prefix) :].split(".")
            slots.setdefault(int(index), {})[key] = torch.from_numpy(array.copy())
    return slots
