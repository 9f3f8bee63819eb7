"""Adaptation: a new speaker against the frozen shared network. Nobody else's files are touched."""

from pathlib import Path

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.weights import LossParams
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.training.fit import Fit
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.objective import Trainee
from gensync_core.training.schedules import FitParams


def adapt_speaker(
    clip: ClipDataset,
    state: SpeakerState,
    network: GenSync,
    params: FitParams,
    losses: LossParams,
    backend: Backend,
    seed: int,
    scratch: Path,
    job: str,
) -> tuple[MetricLog, int]:
    """Fit Gaussians and identity code (which starts from the cohort's mean) in place."""
    state.identity = network.mean_identity.detach().clone()
    fit = Fit(network, [Trainee.of(clip, state)], params, losses, backend, seed, train_shared=False)
    resumed_at = fit.run(scratch, job)
    state.freeze()
    return fit.log, resumed_at
