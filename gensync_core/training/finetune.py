"""Fine-tuning: the shared network goes a little further on adapted speakers, and replays the cohort, lest it is forgotten.

Everybody's Gaussians and codes move along. Source: own choice; replay is the plainest remedy against forgetting.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.dataset.sampler import with_replay
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.weights import LossParams
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.training.fit import Fit
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.objective import Trainee
from gensync_core.training.schedules import FinetuneParams


def finetune(
    network: GenSync,
    old: Sequence[tuple[ClipDataset, SpeakerState]],
    new: Sequence[tuple[ClipDataset, SpeakerState]],
    params: FinetuneParams,
    losses: LossParams,
    backend: Backend,
    seed: int,
    scratch: Path,
) -> tuple[MetricLog, int]:
    """Train the network and the states of all speakers in place.

    Args:
        network: trained on the old speakers; the new ones were adapted to it.
        old: clip and state of each speaker of the cohort.
        new: of each adapted speaker.
        params: schedule.
        losses: weights of the terms.
        backend: renderer.
        seed: of the run.
        scratch: folder of the resume state.

    Returns:
        The log of losses, and the step a resumed run started from.
    """
    torch.manual_seed(seed)  # of the speaker classifier, which is trained anew
    trainees = [Trainee.of(clip, state) for clip, state in (*old, *new)]
    sampler = functools.partial(with_replay, num_old=len(old), replay_share=params.replay_share)
    fit = Fit(network, trainees, params, losses, backend, seed, train_shared=True, sampler=sampler)
    resumed_at = fit.run(scratch, "finetune")
    network.mean_identity.copy_(torch.stack([trainee.state.identity.detach() for trainee in trainees]).mean(0))
    for trainee in trainees:
        trainee.state.freeze()
    return fit.log, resumed_at
