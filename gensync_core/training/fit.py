"""The training loop that joint and adapt share: mixed-identity batches of images plus landmark motion.

Joint trains the shared network and every speaker's state; adapt freezes the network and trains one speaker's state.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gensync_core.dataset.clip_dataset import balanced_weights
from gensync_core.dataset.sampler import Choice, mixed_identities
from gensync_core.errors import TrainingFailed, UsageError
from gensync_core.gaussians.densification import GAUSSIAN_RATES
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.weights import LossParams
from gensync_core.model.gensync import GenSync
from gensync_core.progress import progress
from gensync_core.training.batch_loss import BatchLoss
from gensync_core.training.checkpoint import Checkpoint, Diverged
from gensync_core.training.heap import keep_freed_memory
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.objective import Trainee
from gensync_core.training.preview import write_preview
from gensync_core.training.processes import Processes
from gensync_core.training.schedules import FitParams

_logger = logging.getLogger(__name__)
_CHECKPOINT_INTERVAL_S = 55.0
_MAX_HALVINGS = 3
_Rates = list[tuple[torch.optim.Optimizer, list[float]]]
"""Each optimiser with the full rates of its groups."""
Sampler = Callable[[int, int, Sequence[np.ndarray], int], list[Choice]]
"""Seed, step, weights of each speaker's frames, images a batch -> the batch."""


class Fit:
    """One run of the loop; `run` trains in place and is resumed by running it again with the same scratch folder.

    A loss or a tensor that is not finite sends the training back to its last checkpoint with halved learning rates, three
    times at most.

    `sampler` chooses each step's images. `watch`, where given, is called after every step with the number of steps done; it
    must leave what is trained alone.
    """

    def __init__(
        self,
        network: GenSync,
        trainees: list[Trainee],
        params: FitParams,
        losses: LossParams,
        backend: Backend,
        seed: int,
        *,
        train_shared: bool,
        processes: Processes = Processes(),  # noqa: B008 - immutable
        sampler: Sampler = mixed_identities,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        if params.batch_size < processes.count:
            raise UsageError(
                f"batch_size is {params.batch_size} and there are {processes.count} processes, of which each needs an image: "
                "start fewer or raise batch_size in params.yaml"
            )
        self.network, self.trainees, self.params = network, trainees, params
        self.backend, self.seed, self.processes = backend, seed, processes
        self._sampler, self._watch = sampler, watch
        self.log = MetricLog()
        self.objective = BatchLoss(
            network, trainees, losses, backend, seed, motion_pairs=params.motion_pairs, feature_noise=params.feature_noise,
            train_shared=train_shared, train_aligners=params.aligner_rate > 0,
            perceptual_from=params.steps - params.steps // 5, processes=processes,
        )  # fmt: skip
        self.shared = self._shared_optimiser() if train_shared else None
        self.own = [self._own_optimiser(trainee) for trainee in trainees]
        self.halvings = torch.zeros((), dtype=torch.int64)
        self._weights = [balanced_weights(trainee.data.aperture[: trainee.data.num_train]) for trainee in trainees]
        keep_freed_memory()

    def _shared_optimiser(self) -> torch.optim.Optimizer:
        tables, encoder, rest = [], [], []
        for name, parameter in self.network.named_parameters():
            group = tables if "triplane" in name else encoder if name.startswith("audio_encoder") else rest
            group.append(parameter)
        if self.objective.classifier is not None:
            rest += list(self.objective.classifier.parameters())
        params = self.params
        return torch.optim.AdamW(
            [
                {"params": tables, "lr": params.grid_rate, "weight_decay": 0.0},
                {"params": encoder, "lr": params.network_rate, "weight_decay": params.weight_decay},
                {"params": rest, "lr": params.network_rate, "weight_decay": 0.0},
            ],
            eps=1e-12,
            fused=True,
        )

    def _own_optimiser(self, trainee: Trainee) -> torch.optim.Optimizer:
        state, groups = trainee.state, []
        for cloud in (state.head, state.torso):
            for name, tensor in cloud.named():
                groups.append({"params": [tensor], "lr": GAUSSIAN_RATES[name] * self.params.gaussian_rate})
        groups.append({"params": [state.identity], "lr": self.params.identity_rate})
        if self.params.aligner_rate > 0:
            groups.append({"params": [state.aligner.scale, state.aligner.offset], "lr": self.params.aligner_rate})
        return torch.optim.Adam(groups, eps=1e-15, fused=True)

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, by name."""
        return {**self.objective.state_dict(keep_vars=True), "halvings": self.halvings}

    def run(self, scratch: Path, job: str) -> int:
        """Train to the end of the schedule; returns the step that a resumed run started from.

        Raises:
            TrainingFailed: the loss or a tensor is not finite, again and again.
        """
        optimisers = {f"own{number}": optimiser for number, optimiser in enumerate(self.own)}
        if self.shared is not None:
            optimisers["shared"] = self.shared
        rates = [(optimiser, [group["lr"] for group in optimiser.param_groups]) for optimiser in optimisers.values()]
        checkpoint = Checkpoint(scratch, self.tensors(), optimisers, self.log, self.processes)
        start = checkpoint.restore()
        if start is None:
            start = 0
            checkpoint.save(start)
        else:
            _logger.info("resuming %s at step %d", job, start)
        step, total, saved = start, self.params.steps + self.params.torso_steps, time.monotonic()
        objective = self.processes.wrap(self.objective)
        with progress(job, total, done=start) as bar:
            while step < total:
                due = self.processes.from_first(time.monotonic() - saved > _CHECKPOINT_INTERVAL_S)
                try:
                    parts = self._step(step, objective, rates)
                    if due:
                        checkpoint.save(step + 1)
                    elif step + 1 == total:
                        checkpoint.check()
                except Diverged as error:
                    step = self._roll_back(checkpoint, job, step, error)
                    bar.rewind(step)
                    continue
                step += 1
                bar.advance(note=f"loss {parts['loss']:.4f}")
                if due or step == total:
                    self._write_preview(scratch, job)
                    saved = time.monotonic()
                if self._watch is not None:
                    self._watch(step)
        self.log.flush(total)
        return start

    def _write_preview(self, scratch: Path, job: str) -> None:
        if self.processes.is_first:
            path = scratch.parent / "previews" / f"{job.replace(' ', '-')}.png"
            write_preview(path, self.network, self.trainees, self.backend)

    def _step(self, step: int, objective: nn.Module, rates: _Rates) -> dict[str, float]:
        """One update; returns the loss and its parts."""
        torso = step >= self.params.steps
        factor = self._decay(step) * 0.5 ** int(self.halvings)
        for optimiser, group_rates in rates:
            own = self.params.torso_rate if torso and optimiser is self.shared else 1.0
            for group, rate in zip(optimiser.param_groups, group_rates, strict=True):
                group["lr"] = rate * factor * own
        batch = self._sampler(self.seed, step, self._weights, self.params.batch_size)
        stepping = [self.own[number] for number in sorted({choice.speaker for choice in batch})]
        stepping += [self.shared] if self.shared is not None else []
        loss, parts = objective(step, batch, torso)
        parts = self.processes.sum(parts)
        if not math.isfinite(parts["loss"]):
            raise Diverged(f"the loss is {parts['loss']}")
        descend(loss, stepping)
        self.log.add(step, **parts)
        return parts

    def _roll_back(self, checkpoint: Checkpoint, job: str, step: int, error: Diverged) -> int:
        """Restore the last checkpoint and halve the learning rates; returns the checkpoint's step."""
        halvings = int(self.halvings) + 1
        if halvings > _MAX_HALVINGS:
            raise TrainingFailed(
                f"{job}: {error} at step {step}, after the learning rates were halved {_MAX_HALVINGS} times; nothing was "
                "written. Lower them in params.yaml and run again"
            ) from error
        last = checkpoint.restore() or 0
        self.halvings.fill_(halvings)
        checkpoint.save(last)
        _logger.warning("%s: %s at step %d; going on from step %d with halved learning rates", job, error, step, last)
        return last

    def _decay(self, step: int) -> float:
        """Exponential decay to a tenth over each of the two phases."""
        steps, torso = self.params.steps, self.params.torso_steps
        done = step / steps if step < steps else (step - steps) / max(torso, 1)
        return 10.0**-done


def descend(loss: Tensor, optimisers: list[torch.optim.Optimizer]) -> None:
    """Backward pass and one step of each optimiser."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()
