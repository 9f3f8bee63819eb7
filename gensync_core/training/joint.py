"""Joint training: one network, all speakers of the cohort, mixed identities in every batch.

Source: GenSync joint training.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.weights import LossParams
from gensync_core.model.gensync import GenSync
from gensync_core.model.model_params import ModelParams
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.training.fit import Fit
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.objective import Trainee
from gensync_core.training.processes import Processes
from gensync_core.training.schedules import FitParams


def train_joint(
    clips: list[ClipDataset],
    states: list[SpeakerState],
    model: ModelParams,
    params: FitParams,
    losses: LossParams,
    backend: Backend,
    seed: int,
    scratch: Path,
    processes: Processes = Processes(),  # noqa: B008 - immutable
    watch: Callable[[int, GenSync], None] | None = None,
) -> tuple[GenSync, MetricLog, int]:
    """Train the shared network and the speakers' states (in place).

    `watch`, where given, is called after every step with the number of steps done and the network as it is.

    Returns:
        The network, the log of losses, and the step a resumed run started from.
    """
    torch.manual_seed(seed)
    network = GenSync(model, clips[0].features.shape[1])
    network.standardise.fit(torch.cat([clip.features[: clip.num_train] for clip in clips]))
    network.to(backend.device)
    generator = torch.Generator().manual_seed(seed)
    for state in states:
        state.identity = (0.3 * torch.randn(model.identity_size, generator=generator)).to(backend.device)
    trainees = [Trainee.of(clip, state) for clip, state in zip(clips, states, strict=True)]
    fit = Fit(
        network, trainees, params, losses, backend, seed, train_shared=True, processes=processes,
        watch=None if watch is None else lambda step: watch(step, network),
    )  # fmt: skip
    resumed_at = fit.run(scratch, "joint")
    network.mean_identity.copy_(torch.stack([state.identity.detach() for state in states]).mean(0))
    for state in states:
        state.freeze()
    return network, fit.log, resumed_at
