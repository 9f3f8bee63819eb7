"""finetune: the model in use and everybody's clips in, a fine-tuned model in a folder of its own out, scored against the first.

The model in use stays as it is.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gensync_core.artefacts import sha256_of, write_json
from gensync_core.audio.audio_params import AudioParams
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.errors import UsageError
from gensync_core.evaluation.evaluate_params import EvaluateParams
from gensync_core.evaluation.trial import Trial
from gensync_core.gaussians.rasterize import Backend, choose_backend
from gensync_core.losses.lpips_weights import without_missing_weights
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.params import Params, digest
from gensync_core.paths import Project, SpeakerPaths
from gensync_core.progress import progress
from gensync_core.rendering.synthesis import Avatar
from gensync_core.speakers import Speaker
from gensync_core.training.checkpoint import discard_states
from gensync_core.training.finetune import finetune
from gensync_core.training.run_record import RunRecord


class _Student(NamedTuple):
    speaker: Speaker
    paths: SpeakerPaths
    clip: ClipDataset
    state: SpeakerState


def run(project: Project, params: Params) -> None:
    """Train the shared network further on adapted speakers and the cohort, and measure everybody before and after.

    Raises:
        UsageError: nobody is adapted.
        ArtefactBroken: the model in use or a speaker's files are missing or damaged.
    """
    registry = project.registry()
    if not registry.ids("adapted"):
        raise UsageError("nobody is adapted, so there is nobody to fine-tune for: gensync onboard VIDEO --speaker ID")
    backend = choose_backend(params.render)
    record = RunRecord("finetune", backend)
    network, _ = GenSync.load(project.shared, backend.device)
    groups: dict[str, list[_Student]] = {"cohort": [], "adapted": []}
    for speaker in registry.speakers.values():
        paths = project.speaker(speaker)
        clip = ClipDataset.open(paths, project.scratch / "frames", params.split)
        groups[speaker.group].append(_Student(speaker, paths, clip, SpeakerState.load(paths.model, backend.device)))
    students = [*groups["cohort"], *groups["adapted"]]
    before = _scores("scores before", students, network, backend, params.evaluate, params.audio)

    losses, source = without_missing_weights(params.loss), sha256_of(project.shared)
    inputs = {s.speaker.id: [sha256_of(file) for file in _inputs(s.paths)] for s in students}
    key = digest("finetune", source, inputs, params.seed, losses, params.finetune, params.split, backend.name)
    old, new = ([(student.clip, student.state) for student in group] for group in groups.values())
    log, resumed_at = finetune(
        network, old, new, params.finetune, losses, backend, params.seed, project.scratch / f"finetune-{key}"
    )
    after = _scores("scores after", students, network, backend, params.evaluate, params.audio)

    images = (params.finetune.steps + params.finetune.torso_steps) * params.finetune.batch_size
    meta = {
        **{name: [student.speaker.id for student in group] for name, group in groups.items()},
        "finetuned_from": source,
        "images_seen": images,
        "rasterizer": backend.name,
        "device": backend.device,
        "seed": params.seed,
        "perceptual": losses.perceptual,
    }
    _write(project, students, network, meta)
    for student in students:
        log.write(project.finetuned(student.speaker).training_log)
    write_json(
        project.finetuned_scores,
        {
            "finetuned_from": source,
            "images_seen": images,
            "replay_share": params.finetune.replay_share,
            "speakers": {
                s.speaker.id: {"group": s.speaker.group, "before": before[s.speaker.id], "after": after[s.speaker.id]}
                for s in students
            },
        },
    )
    record.write(project.scratch, images_seen=images, resumed_at_step=resumed_at)
    discard_states(project.scratch, "finetune")


def _inputs(paths: SpeakerPaths) -> list[Path]:
    return [paths.clip, paths.masks, paths.track_arrays, paths.audio, paths.model]


def _scores(
    job: str, students: list[_Student], network: GenSync, backend: Backend, evaluate: EvaluateParams, audio: AudioParams
) -> dict[str, dict[str, float | int | None]]:
    """Figures of `evaluation.figures.METRICS` on everybody's held-out frames, by speaker."""
    held_out = [np.arange(s.clip.num_train, s.clip.num_frames)[: evaluate.max_frames] for s in students]
    figures = {}
    looks = sum(Trial.num_looks(len(frames), evaluate) for frames in held_out)
    with tempfile.TemporaryDirectory() as folder, progress(job, looks) as bar:
        for student, frames in zip(students, held_out, strict=True):
            trial = Trial(student.clip, Avatar(network, student.state, backend), frames, evaluate, audio, bar)
            figures[student.speaker.id] = trial.run(student.paths.wav, Path(folder) / "pair.mp4").figures
    return figures


def _write(project: Project, students: list[_Student], network: GenSync, meta: dict[str, Any]) -> None:
    for student in students:
        student.state.meta = {"speaker": student.speaker.id, "group": student.speaker.group, **meta}
        student.state.save(project.finetuned(student.speaker).model)
    network.save(project.finetuned_shared, meta)
    write_json(project.finetuned_shared.with_suffix(".json"), {**meta, "sha256": sha256_of(project.finetuned_shared)})
