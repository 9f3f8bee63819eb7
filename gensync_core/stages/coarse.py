"""coarse: preprocessing of one speaker in, static head and torso Gaussians out."""

import torch

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.params import Params
from gensync_core.paths import Project
from gensync_core.training.coarse import fit_coarse
from gensync_core.training.run_record import RunRecord


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Fit the static start of a speaker.

    Raises:
        ArtefactBroken: what preprocessing wrote is missing or damaged.
    """
    paths = project.speaker(project.registry().get(speaker_id))
    backend = choose_backend(params.render)
    torch.manual_seed(params.seed)
    record = RunRecord(f"coarse-{speaker_id}", backend)
    data = ClipDataset.open(paths, project.scratch / "frames", params.split)
    state, log = fit_coarse(data, params.coarse, params.model.identity_size, backend, params.seed)
    state.meta = {"speaker": speaker_id, "rasterizer": backend.name, "device": backend.device}
    log.write(paths.coarse_log)
    state.save(paths.coarse)
    record.write(project.scratch, images_seen=params.coarse.steps, resumed_at_step=0)
