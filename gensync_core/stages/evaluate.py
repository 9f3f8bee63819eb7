"""evaluate: a trained speaker and the held-out end of the clip in, figures and a report out."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gensync_core.artefacts import sha256_of
from gensync_core.audio.waveform import FPS
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.errors import ArtefactBroken
from gensync_core.evaluation.provenance import code_digest, parameter_digest
from gensync_core.evaluation.report import Evaluation, Loss, read_losses, write_report
from gensync_core.evaluation.trial import Trial
from gensync_core.gaussians.rasterize import Backend, choose_backend
from gensync_core.params import Params
from gensync_core.paths import Project, SpeakerPaths
from gensync_core.progress import progress
from gensync_core.rendering.synthesis import Avatar, load_avatar


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Render the held-out frames from the clip's own sound and from two controls, measure, and write the report.

    Raises:
        UsageError: unknown speaker.
        ArtefactBroken: what preprocessing or training wrote is missing, damaged, or does not fit together.
        AssetMissing: `evaluate.lpips` is true and the weights are not to be had.
    """
    speaker = project.registry().get(speaker_id)
    paths = project.speaker(speaker)
    backend = choose_backend(params.render)
    avatar = load_avatar(project.shared, paths.model, backend)
    data = ClipDataset.open(paths, project.scratch / "frames", params.split)
    if avatar.resolution != data.camera.width:
        raise ArtefactBroken(
            f"{paths.model}: trained at {avatar.resolution} px, but the clip has {data.camera.width} px; train again"
        )
    frames = _held_out(data, params.evaluate.max_frames)
    # What a report shows must be among the stage's params in dvc.yaml, or the report would go stale unnoticed.
    used = {
        "ingest": params.ingest,
        "parse": params.parse,
        "track": params.track,
        "audio": params.audio,
        "split": params.split,
        "render": params.render,
        "model": params.model,
        "loss": params.loss,
        "coarse": params.coarse,
        "joint": params.joint,
        "adapt": params.adapt,
        "evaluate": params.evaluate,
    }
    parameters = {"run": {"seed": params.seed}} | {name: asdict(section) for name, section in used.items()}
    digests = _digests(project, paths, parameters)
    num_looks = Trial.num_looks(len(frames), params.evaluate)
    with tempfile.TemporaryDirectory() as folder, progress(f"evaluate {speaker_id}", num_looks) as bar:
        video = Path(folder) / "pair.mp4"
        outcome = Trial(data, avatar, frames, params.evaluate, params.audio, bar).run(paths.wav, video)
        measured_on = _measured_on(data, avatar, frames, backend)
        evaluation = Evaluation(
            speaker=speaker_id,
            metrics=outcome.figures | measured_on | {f"sha256_{name}": digest for name, digest in digests},
            facts=_facts(speaker.group, measured_on),
            digests=digests,
            parameters=parameters,
            apertures=outcome.apertures,
            losses=_losses(paths, speaker.group),
            sheet=outcome.sheet,
            attention=outcome.attention,
            video=video,
        )
        write_report(paths.report, evaluation)


def _held_out(data: ClipDataset, max_frames: int | None) -> np.ndarray:
    frames = np.arange(data.num_train, data.num_frames)
    if len(frames) == 0:
        raise ArtefactBroken(f"the clip has {data.num_frames} frame(s), none of which is held out; onboard longer footage")
    return frames if max_frames is None else frames[:max_frames]


def _losses(paths: SpeakerPaths, group: str) -> list[Loss]:
    last = ("joint" if group == "cohort" else "adapt", paths.training_log)
    return [loss for stage, path in (("coarse", paths.coarse_log), last) for loss in read_losses(path, stage)]


def _measured_on(data: ClipDataset, avatar: Avatar, frames: np.ndarray, backend: Backend) -> dict[str, Any]:
    head, torso = len(avatar.state.head.means), len(avatar.state.torso.means)
    return {
        "frames": len(frames),
        "first_frame": int(frames[0]),
        "footage_seconds": data.num_frames / FPS,
        "resolution": avatar.resolution,
        "gaussians": head + torso,
        "gaussians_head": head,
        "gaussians_torso": torso,
        "images_seen": avatar.state.meta.get("images_seen"),
        "device": str(backend.device),
        "backend": backend.name,
        "mode": avatar.field.mode,
    }


def _facts(group: str, on: dict[str, Any]) -> list[tuple[str, str]]:
    first, count = on["first_frame"], on["frames"]
    return [
        ("trained", "with the cohort" if group == "cohort" else "against the frozen shared network"),
        ("held out", f"frames {first} to {first + count - 1}, {count / FPS:.2f} s of {on['footage_seconds']:.2f} s"),
        ("size", f"{on['resolution']} px, {FPS} fps"),
        ("Gaussians", f"{on['gaussians_head']} head, {on['gaussians_torso']} torso"),
        ("images seen", "unknown" if on["images_seen"] is None else str(on["images_seen"])),
        ("rendered on", f"{on['device']}, {on['backend']}, {on['mode']} mode"),
    ]


def _digests(project: Project, paths: SpeakerPaths, parameters: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    files = (
        ("clip", paths.clip),
        ("sound", paths.wav),
        ("features", paths.audio),
        ("track", paths.track_arrays),
        ("shared", project.shared),
        ("speaker", paths.model),
    )
    digests = [(name, sha256_of(path)) for name, path in files]
    return [*digests, ("parameters", parameter_digest(parameters)), ("code", code_digest())]
