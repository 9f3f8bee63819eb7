"""adapt: a new speaker's coarse start and the frozen shared network in, the speaker's state out."""

from gensync_core.artefacts import sha256_of
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.losses.lpips_weights import without_missing_weights
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.params import Params, digest
from gensync_core.paths import Project
from gensync_core.training.adapt import adapt_speaker
from gensync_core.training.checkpoint import discard_states
from gensync_core.training.run_record import RunRecord


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Fit a speaker against the frozen shared network.

    Raises:
        ArtefactBroken: the shared network or the speaker's files are missing or damaged.
    """
    speaker = project.registry().get(speaker_id)
    paths = project.speaker(speaker)
    backend = choose_backend(params.render)
    record = RunRecord(f"adapt-{speaker_id}", backend)
    network, shared_meta = GenSync.load(project.shared, backend.device)
    data = ClipDataset.open(paths, project.scratch / "frames", params.split)
    state = SpeakerState.load(paths.coarse, backend.device)
    files = [project.shared, paths.clip, paths.masks, paths.track_arrays, paths.audio, paths.coarse]
    losses = without_missing_weights(params.loss)
    key = digest(
        "adapt",
        [sha256_of(file) for file in files],
        params.seed,
        losses,
        params.adapt,
        params.split,
        backend.name,
    )
    scratch = project.scratch / f"adapt-{speaker_id}-{key}"
    log, resumed_at = adapt_speaker(
        data, state, network, params.adapt, losses, backend, params.seed, scratch, f"adapt {speaker_id}"
    )
    images = (params.adapt.steps + params.adapt.torso_steps) * params.adapt.batch_size
    state.meta = {
        "speaker": speaker_id,
        "group": speaker.group,
        "cohort": shared_meta["cohort"],
        "images_seen": images,
        "rasterizer": backend.name,
        "device": backend.device,
        "seed": params.seed,
        "perceptual": losses.perceptual,
    }
    log.write(paths.training_log)
    state.save(paths.model)
    record.write(project.scratch, images_seen=images, resumed_at_step=resumed_at)
    discard_states(project.scratch, f"adapt-{speaker_id}")
