"""The head field trained on landmark motion alone: no pictures, no Gaussians, a minute instead of several.

The terms are those of joint that teach the audio encoder. What is left out reaches the lips' landmarks hardly at all.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.dataset.sampler import adjacent_pairs, step_rng
from gensync_core.losses.disentangling import speaker_confusion
from gensync_core.model.disentanglement import SpeakerClassifier
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.params import Params
from gensync_core.progress import progress
from gensync_core.training.fit import descend
from gensync_core.training.objective import Trainee, motion_terms, silence_term


class Student(NamedTuple):
    """A speaker to learn from.

    Attributes:
        data: the clip, with the features that are heard once it is trained.
        state: aligner and mean pose; its identity is drawn and trained.
        altered: features [T, D] of altered copies of the sound; each step hears one of these or the original.
    """

    data: ClipDataset
    state: SpeakerState
    altered: Sequence[Float[Tensor, "T D"]] = ()


def train_on_landmarks(students: Sequence[Student], params: Params, seed: int) -> GenSync:
    """Train a network, and the students' identities in place; all random choices are functions of seed and step."""
    losses, schedule = params.loss, params.joint
    torch.manual_seed(seed)
    network = GenSync(params.model, students[0].data.features.shape[1])
    network.standardise.fit(torch.cat([student.data.features[: student.data.num_train] for student in students]))
    classifier = SpeakerClassifier(params.model.audio_size, len(students))
    generator = torch.Generator().manual_seed(seed)
    for student in students:
        student.state.identity = torch.nn.Parameter(0.3 * torch.randn(params.model.identity_size, generator=generator))
    trainees = [Trainee.of(student.data, student.state) for student in students]
    optimiser = _optimiser(network, classifier, students, params)
    rates = [group["lr"] for group in optimiser.param_groups]
    with progress("landmarks", schedule.steps) as bar:
        for step in range(schedule.steps):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * 10.0 ** (-step / schedule.steps)
            rng, loss = step_rng(seed, step, stream=2), torch.zeros(())
            others = rng.permutation(len(students))
            for number, (student, trainee) in enumerate(zip(students, trainees, strict=True)):
                heard = _hear(trainee, student, int(rng.integers(1 + len(student.altered))))
                draws = torch.Generator().manual_seed(int(step_rng(seed, step, stream=5 + number).integers(2**62)))
                pairs = adjacent_pairs(seed + number, step, heard.data.num_train, schedule.motion_pairs)
                other = students[int(others[number])].state.identity.detach() if len(students) > 1 else None
                motion = motion_terms(network, heard, pairs, losses, schedule.feature_noise, draws, other)
                guesses = classifier(motion.audio)
                speakers = torch.full((len(guesses),), number)
                loss = loss + motion.total + losses.confusion * speaker_confusion(guesses, speakers).mean()
                if losses.silence > 0:
                    loss = loss + losses.silence * silence_term(network, heard, draws)
            descend(loss / len(students), [optimiser])
            bar.advance()
    for student in students:
        student.state.identity = student.state.identity.detach()
    return network.eval()


def _hear(trainee: Trainee, student: Student, choice: int) -> Trainee:
    if choice == 0:
        return trainee
    return replace(trainee, data=replace(trainee.data, features=student.altered[choice - 1]))


def _optimiser(
    network: GenSync, classifier: SpeakerClassifier, students: Sequence[Student], params: Params
) -> torch.optim.Optimizer:
    """One AdamW with the rates of `training.fit`."""
    tables, encoder, rest = [], [], list(classifier.parameters())
    for name, parameter in network.named_parameters():
        (tables if "triplane" in name else encoder if name.startswith("audio_encoder") else rest).append(parameter)
    schedule = params.joint
    groups = (
        (tables, schedule.grid_rate, 0.0),
        (encoder, schedule.network_rate, schedule.weight_decay),
        (rest, schedule.network_rate, 0.0),
        ([student.state.identity for student in students], schedule.identity_rate, 0.0),
    )
    return torch.optim.AdamW(
        [{"params": part, "lr": rate, "weight_decay": decay} for part, rate, decay in groups], eps=1e-12, fused=True
    )
