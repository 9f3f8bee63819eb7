"""joint: the whole cohort in, one shared network and every cohort speaker's state out."""

from gensync_core.artefacts import sha256_of, write_json
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.errors import ArtefactBroken, UsageError
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.losses.lpips_weights import without_missing_weights
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.params import Params, digest
from gensync_core.paths import Project
from gensync_core.training.checkpoint import discard_states
from gensync_core.training.joint import train_joint
from gensync_core.training.processes import joined_processes
from gensync_core.training.run_record import RunRecord


def run(project: Project, params: Params) -> None:
    """Train the cohort.

    Raises:
        UsageError: the cohort is empty.
        ArtefactBroken: the cohort's folder holds somebody who is not in `speakers.yaml`, or somebody's files are broken.
    """
    registry = project.registry()
    cohort = [registry.get(speaker_id) for speaker_id in registry.ids("cohort")]
    if not cohort:
        raise UsageError("the cohort is empty: onboard a speaker first (gensync onboard VIDEO --speaker ID)")
    there = sorted(folder.name for folder in project.cohort_folder.iterdir() if folder.is_dir())
    orphans = sorted(set(there) - {speaker.id for speaker in cohort})
    if orphans:
        raise ArtefactBroken(
            f"{project.cohort_folder}: {', '.join(orphans)} is not in speakers.yaml; "
            "remove the folder or onboard the speaker again"
        )
    backend = choose_backend(params.render)
    record = RunRecord("joint", backend)
    paths = [project.speaker(speaker) for speaker in cohort]
    clips = [ClipDataset.open(path, project.scratch / "frames", params.split) for path in paths]
    states = [SpeakerState.load(path.coarse, backend.device) for path in paths]
    inputs = {
        speaker.id: [sha256_of(p) for p in (path.clip, path.masks, path.track_arrays, path.audio, path.coarse)]
        for speaker, path in zip(cohort, paths, strict=True)
    }
    losses = without_missing_weights(params.loss)
    key = digest("joint", inputs, params.seed, params.model, losses, params.joint, params.split, backend.name)
    scratch = project.scratch / f"joint-{key}"
    with joined_processes(backend.device) as processes:
        network, log, resumed_at = train_joint(
            clips, states, params.model, params.joint, losses, backend, params.seed, scratch, processes
        )
        if not processes.is_first:
            return
    images = (params.joint.steps + params.joint.torso_steps) * params.joint.batch_size
    meta = {
        "cohort": [speaker.id for speaker in cohort],
        "images_seen": images,
        "rasterizer": backend.name,
        "device": backend.device,
        "seed": params.seed,
        "perceptual": losses.perceptual,
    }
    for speaker, path, state in zip(cohort, paths, states, strict=True):
        state.meta = {"speaker": speaker.id, "group": speaker.group, **meta}
        state.save(path.model)
        log.write(path.training_log)
    current = {file for path in paths for file in (path.model, path.training_log)}
    for stale in set(project.model_folder.glob("cohort/*")) - current:
        stale.unlink()
    network.save(project.shared, meta)
    write_json(
        project.shared_json,
        {**meta, "steps": params.joint.steps, "torso_steps": params.joint.torso_steps, "sha256": sha256_of(project.shared)},
    )
    record.write(project.scratch, images_seen=images, resumed_at_step=resumed_at)
    discard_states(project.scratch, "joint")
