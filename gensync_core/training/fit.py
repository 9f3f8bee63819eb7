"""The training loop that joint and adapt share: mixed-identity batches of images plus landmark motion.

Joint trains the shared network and every speaker's state; adapt freezes the network and trains one speaker's state.
"""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gensync_core.dataset.clip_dataset import balanced_weights
from gensync_core.dataset.sampler import adjacent_pairs, mixed_identities, step_rng
from gensync_core.errors import TrainingFailed
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.disentangling import speaker_confusion
from gensync_core.losses.weights import LossParams
from gensync_core.model.disentanglement import SpeakerClassifier
from gensync_core.model.gensync import GenSync
from gensync_core.progress import Progress, progress
from gensync_core.training.checkpoint import Checkpoint
from gensync_core.training.heap import keep_freed_memory
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.objective import Trainee, head_terms, motion_terms, torso_terms

_logger = logging.getLogger(__name__)
_CHECKPOINT_INTERVAL_S = 60.0
GAUSSIAN_RATES = {"means": 4e-4, "quats": 1e-3, "log_scales": 5e-3, "logit_opacities": 2e-2, "sh": 5e-3}
"""Learning rates of 3DGS, with means in decimetre."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitParams:
    """Schedule of the training loop.

    Attributes:
        steps: steps on heads; torso_steps: steps on torsos after them.
        batch_size: images a step, of different speakers.
        motion_pairs: adjacent frame pairs a speaker and step for the motion terms.
        network_rate, grid_rate, identity_rate: learning rates of networks, hash tables and identity codes.
        gaussian_rate: factor on the learning rates of 3DGS.
        weight_decay: of the audio encoder.
        feature_noise: deviation of the noise added to standardised speech features in the motion terms.
    """

    steps: int
    torso_steps: int
    batch_size: int
    motion_pairs: int
    network_rate: float
    grid_rate: float
    identity_rate: float
    gaussian_rate: float
    weight_decay: float
    feature_noise: float

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "motion_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in (
            "torso_steps",
            "network_rate",
            "grid_rate",
            "identity_rate",
            "gaussian_rate",
            "weight_decay",
            "feature_noise",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class Fit:
    """One run of the loop; `run` trains in place and is resumed by running it again with the same scratch folder."""

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
    ) -> None:
        self.network, self.trainees, self.params, self.losses = network, trainees, params, losses
        self.backend, self.seed, self.train_shared = backend, seed, train_shared
        self.log = MetricLog()
        self.classifier: SpeakerClassifier | None = None
        if train_shared and len(trainees) > 1 and losses.confusion > 0:
            self.classifier = SpeakerClassifier(network.params.audio_size, len(trainees)).to(backend.device)
        network.requires_grad_(train_shared)
        self.shared = self._shared_optimiser() if train_shared else None
        self.own = [self._own_optimiser(trainee) for trainee in trainees]
        keep_freed_memory()

    def _shared_optimiser(self) -> torch.optim.Optimizer:
        tables, encoder, rest = [], [], []
        for name, parameter in self.network.named_parameters():
            group = tables if "triplane" in name else encoder if name.startswith("audio_encoder") else rest
            group.append(parameter)
        if self.classifier is not None:
            rest += list(self.classifier.parameters())
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
                groups.append({"params": [tensor.requires_grad_()], "lr": GAUSSIAN_RATES[name] * self.params.gaussian_rate})
        groups.append({"params": [state.identity.requires_grad_()], "lr": self.params.identity_rate})
        return torch.optim.Adam(groups, eps=1e-15, fused=True)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict(keep_vars=True).items()}
        if self.classifier is not None:
            tensors |= {f"classifier.{name}": tensor for name, tensor in self.classifier.state_dict(keep_vars=True).items()}
        for number, trainee in enumerate(self.trainees):
            for part, cloud in (("head", trainee.state.head), ("torso", trainee.state.torso)):
                tensors |= {f"speaker{number}.{part}.{name}": tensor for name, tensor in cloud.named()}
            tensors[f"speaker{number}.identity"] = trainee.state.identity
        return tensors

    def run(self, scratch: Path, job: str) -> int:
        """Train to the end of the schedule; returns the step that a resumed run started from.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        optimisers = {f"own{number}": optimiser for number, optimiser in enumerate(self.own)}
        if self.shared is not None:
            optimisers["shared"] = self.shared
        checkpoint = Checkpoint(scratch, self._tensors(), optimisers, self.log)
        rates = {name: [group["lr"] for group in optimiser.param_groups] for name, optimiser in optimisers.items()}
        start = checkpoint.restore()
        if start:
            _logger.info("resuming %s at step %d", job, start)
        total, saved = self.params.steps + self.params.torso_steps, time.monotonic()
        weights = [balanced_weights(trainee.data.aperture[: trainee.data.num_train]) for trainee in self.trainees]
        with progress(job, total, done=start) as bar:
            for step in range(start, total):
                decay = self._decay(step)
                for name, optimiser in optimisers.items():
                    for group, rate in zip(optimiser.param_groups, rates[name], strict=True):
                        group["lr"] = rate * decay
                batch = mixed_identities(self.seed, step, weights, self.params.batch_size)
                touched = sorted({choice.speaker for choice in batch})
                stepping = [self.own[number] for number in touched] + ([self.shared] if self.shared is not None else [])
                loss, parts = self._head_step(step, batch, touched) if step < self.params.steps else self._torso_step(batch)
                self._update(stepping, loss, step, job)
                self.log.add(step, loss=loss.item(), **parts)
                self._report(bar, loss.item())
                if time.monotonic() - saved > _CHECKPOINT_INTERVAL_S:
                    checkpoint.save(step + 1)
                    saved = time.monotonic()
        self.log.flush(total)
        return start

    def _decay(self, step: int) -> float:
        """Exponential decay to a tenth over each of the two phases."""
        steps, torso = self.params.steps, self.params.torso_steps
        done = step / steps if step < steps else (step - steps) / max(torso, 1)
        return 10.0**-done

    @staticmethod
    def _report(bar: Progress, loss: float) -> None:
        bar.advance(note=f"loss {loss:.4f}")

    def _update(self, stepping: list[torch.optim.Optimizer], loss: Tensor, step: int, job: str) -> None:
        if not math.isfinite(loss.item()):
            raise TrainingFailed(
                f"{job}: the loss is {loss.item()} at step {step}; lower the learning rates in params.yaml and run again"
            )
        for optimiser in stepping:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for optimiser in stepping:
            optimiser.step()

    def _head_step(self, step: int, batch: list, touched: list[int]) -> tuple[Tensor, dict[str, float]]:
        device, params, losses = self.backend.device, self.params, self.losses
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        sums: dict[str, float] = {}
        loss = torch.zeros((), device=device)
        for choice in batch:
            trainee = self.trainees[choice.speaker]
            frame = torch.tensor([choice.frame], device=device)
            with torch.no_grad():  # landmarks teach the audio encoder; with images as well it learns frames by heart
                audio = self.network.encode_audio(trainee.data.features.to(device), frame)
            behind = torch.rand(3, generator=generator)
            terms = head_terms(self.network, trainee, choice.frame, audio, losses, self.backend, behind)
            loss = loss + terms.total / len(batch)
            _accumulate(sums, terms.parts, len(batch))
        codes, speakers = [], []
        others = step_rng(self.seed, step, stream=2).permutation(len(self.trainees))
        for number in touched:
            trainee = self.trainees[number]
            pairs = adjacent_pairs(self.seed + number, step, trainee.data.num_train, params.motion_pairs)
            other = (
                self.trainees[int(others[number])].state.identity.detach()
                if self.train_shared and len(self.trainees) > 1
                else None
            )
            motion = motion_terms(self.network, trainee, pairs, losses, params.feature_noise, generator, other)
            loss = loss + motion.total / len(touched)
            _accumulate(sums, motion.parts, len(touched))
            codes.append(motion.audio)
            speakers.append(torch.full((len(motion.audio),), number, device=device))
        if self.classifier is not None:
            confusion = speaker_confusion(self.classifier(torch.cat(codes)), torch.cat(speakers)).mean()
            loss = loss + losses.confusion * confusion
            sums["confusion"] = confusion.item()
        return loss, sums

    def _torso_step(self, batch: list) -> tuple[Tensor, dict[str, float]]:
        device = self.backend.device
        sums: dict[str, float] = {}
        loss = torch.zeros((), device=device)
        for choice in batch:
            trainee = self.trainees[choice.speaker]
            with torch.no_grad():
                audio = self.network.encode_audio(trainee.data.features.to(device), torch.tensor([choice.frame], device=device))
            terms = torso_terms(self.network, trainee, choice.frame, audio, self.losses, self.backend)
            loss = loss + terms.total / len(batch)
            _accumulate(sums, terms.parts, len(batch))
        return loss, sums


def _accumulate(sums: dict[str, float], parts: dict[str, float], count: int) -> None:
    for name, value in parts.items():
        sums[name] = sums.get(name, 0.0) + value / count
