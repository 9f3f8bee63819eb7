"""synth: a trained speaker and any speech in, a lip-synced video out."""

import tempfile
from pathlib import Path

import numpy as np
import yaml

from gensync_core.audio.features import encode
from gensync_core.audio.waveform import FPS, load_waveform, num_video_frames, write_waveform
from gensync_core.errors import UsageError
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.media.video import VideoWriter
from gensync_core.params import Params
from gensync_core.paths import Project
from gensync_core.progress import progress
from gensync_core.rendering.synthesis import load_avatar


def run(project: Project, job: str, params: Params) -> None:
    """Render one job of `synth.yaml`. The video is as long as the speech, to within half a frame.

    Raises:
        UsageError: there is no such job.
        FootageRejected: the audio file holds no readable sound.
        ArtefactBroken: the speaker or the shared network is missing or damaged.
    """
    jobs = (yaml.safe_load(project.synth_file.read_text()) or {}).get("jobs") or {}
    if job not in jobs:
        raise UsageError(f"{project.synth_file}: no job {job!r}; known: {', '.join(jobs) or 'none'}")
    speaker = project.registry().get(jobs[job]["speaker"])
    backend = choose_backend(params.render)
    samples = load_waveform(project.root / jobs[job]["audio"])
    avatar = load_avatar(project.shared, project.speaker(speaker).model, backend, params.synth.batch_frames)
    features = encode(samples, params.audio).values
    count = num_video_frames(len(samples), FPS)
    poses, upper_face = avatar.natural_motion(count)
    with tempfile.TemporaryDirectory() as folder, progress(f"synth {job}", count) as bar:
        wav = Path(folder) / "speech.wav"
        write_waveform(wav, samples)
        size = avatar.resolution
        with VideoWriter(project.render(job), size, size, FPS, audio=wav, crf=params.synth.crf) as writer:
            for frame in avatar.render(features, poses, upper_face, np.arange(count)):
                writer.write(frame.image)
                bar.advance()
