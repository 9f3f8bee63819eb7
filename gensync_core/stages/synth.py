"""synth: a trained speaker and any speech in, a lip-synced video out."""

import itertools
import tempfile
from pathlib import Path

import yaml

from gensync_core.audio.features import SpeechEncoder
from gensync_core.audio.waveform import FPS, iter_waveform, num_video_frames, store_waveform
from gensync_core.errors import UsageError
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.media.video import VideoWriter
from gensync_core.params import Params
from gensync_core.paths import Project
from gensync_core.progress import progress
from gensync_core.rendering.fast_field import FastField
from gensync_core.rendering.synthesis import Quickening, load_avatar
from gensync_core.training.heap import keep_freed_memory
from gensync_core.training.run_record import RunRecord


def run(project: Project, job: str, params: Params) -> None:
    """Render one job of `synth.yaml`. The video is as long as the speech, to within half a frame; memory does not grow with it.

    What it cost, and in which mode it was rendered, is written to `.gensync/runs/synth-JOB.json`.

    Raises:
        UsageError: there is no such job.
        FootageRejected: the audio file holds no readable sound.
        ArtefactBroken: the speaker or the shared network is missing or damaged.
    """
    keep_freed_memory()  # every frame frees a megabyte or more of images: a quarter of its time went into clearing pages
    jobs = (yaml.safe_load(project.synth_file.read_text()) or {}).get("jobs") or {}
    if job not in jobs:
        raise UsageError(f"{project.synth_file}: no job {job!r}; known: {', '.join(jobs) or 'none'}")
    speaker = project.registry().get(jobs[job]["speaker"])
    backend = choose_backend(params.render)
    record = RunRecord(f"synth-{job}", backend)
    avatar = load_avatar(project.shared, project.speaker(speaker).model, backend, params.synth.batch_frames)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        count = num_video_frames(store_waveform(wav, iter_waveform(project.root / jobs[job]["audio"])))
        features = SpeechEncoder(params.audio).stream(iter_waveform(wav))
        first = next(features)
        quickening = Quickening("full", "asked for", None)
        if params.synth.mode == "fast":
            quickening = avatar.quicken(first, count)
        size = avatar.resolution
        with (
            progress(f"synth {job}", count) as bar,
            VideoWriter(project.render(job), size, size, FPS, audio=wav, crf=params.synth.crf) as writer,
        ):
            for frame in avatar.stream(itertools.chain([first], features)):
                writer.write(frame.image)
                bar.advance()
    likeness = quickening.likeness
    record.write(
        project.scratch,
        stage="synth",
        job=job,
        frames=count,
        mode=quickening.mode,
        reason=quickening.reason,
        likeness=None if likeness is None else likeness._asdict(),
        frames_outside_basis=avatar.field.num_outside if isinstance(avatar.field, FastField) else 0,
    )
