"""The loss of one step: a mixed-identity batch of images, landmark motion of its speakers, and the speaker classifier.

Every term is a sum over images or over speakers, so that processes can share them out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gensync_core.dataset.sampler import Choice, adjacent_pairs, step_rng
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.disentangling import speaker_confusion
from gensync_core.losses.lpips_weights import load_lpips
from gensync_core.losses.perceptual import Look
from gensync_core.losses.weights import LossParams
from gensync_core.model.disentanglement import SpeakerClassifier
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import Aligner, SpeakerState
from gensync_core.training.objective import Trainee, head_terms, motion_terms, silence_term, torso_terms
from gensync_core.training.processes import Processes


class BatchLoss(nn.Module):
    """Holds all that is trained: the shared network, the speaker classifier, and every speaker's state.

    The tensors of the speakers' states become parameters of this module.

    Args:
        network: the shared network; its parameters are frozen unless `train_shared`.
        trainees: the speakers.
        losses: weights of the terms.
        motion_pairs: adjacent frame pairs a speaker and step for the motion terms.
        feature_noise: deviation of the noise on the speech features of these.
        backend: of the rasterizer.
        train_aligners: whether a speaker's aligner is trained, too.
        perceptual_from: step from which on the perceptual term is counted, where it has a weight.
        seed: of the run; every random choice is a function of it and of the step.
    """

    def __init__(
        self,
        network: GenSync,
        trainees: list[Trainee],
        losses: LossParams,
        backend: Backend,
        seed: int,
        *,
        motion_pairs: int,
        feature_noise: float,
        train_shared: bool,
        train_aligners: bool,
        perceptual_from: int,
        processes: Processes,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(train_shared)
        self.trainees, self.losses, self.backend, self.seed = trainees, losses, backend, seed
        self.motion_pairs, self.feature_noise, self.train_shared, self.processes = (
            motion_pairs, feature_noise, train_shared, processes,
        )  # fmt: skip
        self.perceptual_from = perceptual_from
        self._lpips = load_lpips(backend.device) if losses.perceptual > 0 else None
        self.classifier: SpeakerClassifier | None = None
        if train_shared and len(trainees) > 1 and losses.confusion > 0:
            self.classifier = SpeakerClassifier(network.params.audio_size, len(trainees)).to(backend.device)
        self.speakers = nn.ModuleList(_parameters_of(trainee.state, train_aligners) for trainee in trainees)

    def forward(self, step: int, batch: Sequence[Choice], torso: bool) -> tuple[Tensor, dict[str, float]]:
        """This process's share of the step's loss, and of the means of its parts."""
        loss, parts = self._torsos(batch) if torso else self._heads(step, batch)
        parts["loss"] = loss.item()
        # Wrapped modules average gradients over processes; the shares of a loss have to be added.
        return loss * self.processes.count, parts

    def _heads(self, step: int, batch: Sequence[Choice]) -> tuple[Tensor, dict[str, float]]:
        parts: dict[str, float] = {}
        behind = torch.rand(len(batch), 3, generator=self._generator(step, 0))
        loss = torch.zeros((), device=self.backend.device)
        looks = self._looks(step, len(batch))
        for choice, color, look in self.processes.share(list(zip(batch, behind, looks, strict=True))):
            trainee = self.trainees[choice.speaker]
            audio = self._audio_of(trainee, choice.frame)
            terms = head_terms(self.network, trainee, choice.frame, audio, self.losses, self.backend, color, look)
            loss = loss + terms.total / len(batch)
            _accumulate(parts, terms.parts, len(batch))
        touched = sorted({choice.speaker for choice in batch})
        others = step_rng(self.seed, step, stream=2).permutation(len(self.trainees))
        for number in self.processes.share(touched):
            loss = loss + self._motion(step, number, int(others[number]), parts, len(touched)) / len(touched)
        return loss, parts

    def _looks(self, step: int, count: int) -> list[Look] | list[None]:
        """What the perceptual term looks at in each image, or nothing yet."""
        if self._lpips is None or step < self.perceptual_from:
            return [None] * count
        draws = step_rng(self.seed, step, stream=3).random((count, 3)).tolist()
        return [Look(self._lpips, (which, x, y)) for which, x, y in draws]

    def _motion(self, step: int, number: int, other: int, parts: dict[str, float], count: int) -> Tensor:
        """The motion terms and the classifier's of one speaker."""
        trainee, losses = self.trainees[number], self.losses
        pairs = adjacent_pairs(self.seed + number, step, trainee.data.num_train, self.motion_pairs)
        swaps = self.train_shared and len(self.trainees) > 1
        other_identity = self.trainees[other].state.identity.detach() if swaps else None
        generator = self._generator(step, 1 + number)
        motion = motion_terms(self.network, trainee, pairs, losses, self.feature_noise, generator, other_identity)
        _accumulate(parts, motion.parts, count)
        total = motion.total
        if losses.silence > 0:
            silence = silence_term(self.network, trainee, generator)
            _accumulate(parts, {"silence": silence.item()}, count)
            total = total + losses.silence * silence
        if self.classifier is None:
            return total
        speakers = torch.full((len(motion.audio),), number, device=self.backend.device)
        confusion = speaker_confusion(self.classifier(motion.audio), speakers).mean()
        _accumulate(parts, {"confusion": confusion.item()}, count)
        return total + losses.confusion * confusion

    def _torsos(self, batch: Sequence[Choice]) -> tuple[Tensor, dict[str, float]]:
        parts: dict[str, float] = {}
        loss = torch.zeros((), device=self.backend.device)
        for choice in self.processes.share(batch):
            trainee = self.trainees[choice.speaker]
            audio = self._audio_of(trainee, choice.frame)
            terms = torso_terms(self.network, trainee, choice.frame, audio, self.losses, self.backend)
            loss = loss + terms.total / len(batch)
            _accumulate(parts, terms.parts, len(batch))
        return loss, parts

    def _audio_of(self, trainee: Trainee, frame: int) -> Tensor:
        """The audio code of one frame. Landmarks teach the audio encoder; with images as well it learns frames by heart."""
        device = self.backend.device
        with torch.no_grad():
            return self.network.encode_audio(trainee.data.features.to(device), torch.tensor([frame], device=device))

    def _generator(self, step: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(int(step_rng(self.seed, step, stream=4 + stream).integers(2**62)))


def _parameters_of(state: SpeakerState, aligner: bool) -> nn.Module:
    """The state's tensors as parameters of a module; the state holds the same ones from now on."""
    module = nn.Module()
    for part in ("head", "torso"):
        parameters = {name: nn.Parameter(tensor.detach()) for name, tensor in getattr(state, part).named()}
        setattr(state, part, GaussianCloud(**parameters))
        module.add_module(part, nn.ParameterDict(parameters))
    state.identity = nn.Parameter(state.identity.detach())
    module.register_parameter("identity", state.identity)
    if aligner:
        parts = {name: nn.Parameter(getattr(state.aligner, name).detach().clone()) for name in ("scale", "offset")}
        state.aligner = Aligner(**parts)
        module.add_module("aligner", nn.ParameterDict(parts))
    return module


def _accumulate(sums: dict[str, float], parts: dict[str, float], count: int) -> None:
    for name, value in parts.items():
        sums[name] = sums.get(name, 0.0) + value / count
