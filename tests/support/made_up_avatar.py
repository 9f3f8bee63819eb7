"""A made-up avatar, untrained but with fields that move, and projects that hold it; run as a program it synthesises a job.

    python made_up_avatar.py PROJECT JOB [STOP_AFTER_FRAMES]

prints the peak memory of the process in MiB; with a number it is killed within that frame.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.rasterize import Backend
from gensync_core.geometry.camera import Intrinsics
from gensync_core.geometry.motion import Motion
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import Aligner, SpeakerState
from gensync_core.params import Params, load_params
from gensync_core.paths import Project
from gensync_core.rendering.synthesis import Avatar
from gensync_core.speakers import Registry, Speaker

SIZE_PX, FEATURES, POSES = 32, 80, 40
ROOT = Path(__file__).resolve().parents[2]


def params(mode: str = "full") -> Params:
    """Those of the repository, with a small network and log-mel features."""
    stored = load_params(ROOT / "params.yaml")
    model = replace(stored.model, identity_size=6, audio_size=16, triplane_levels=3, triplane_finest=32, triplane_log2_table=8)
    return replace(
        stored,
        model=replace(model, hidden_size=32),
        audio=replace(stored.audio, encoder="log-mel"),
        synth=replace(stored.synth, mode=mode),
    )


def network(seed: int = 0) -> GenSync:
    torch.manual_seed(seed)
    made = GenSync(params().model, FEATURES)
    with torch.no_grad():
        made.standardise.mean.fill_(0.3)
        made.standardise.std.fill_(0.3)
        made.head_field.last.weight.normal_(std=0.2)
        made.torso_field.layers[-1].weight.normal_(std=0.2)
        for field in (made.head_field, made.torso_field):
            field.triplane.table.normal_(std=0.3)
    return made


def speaker(num_head: int = 400, seed: int = 0) -> SpeakerState:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    pose = torch.eye(4)
    pose[2, 3] = 5.0
    poses = pose.repeat(POSES, 1, 1)
    poses[:, :3, 3] += 0.1 * torch.sin(torch.arange(POSES)[:, None] / 6 + torch.arange(3))
    bodies = torch.eye(4).repeat(POSES, 1, 1)
    bodies[:, :2, 2] += 0.02 * torch.sin(torch.arange(POSES)[:, None] / 9 + torch.arange(2))
    head, torso = (
        GaussianCloud.from_points(
            0.4 * normal(count, 3) + torch.tensor(centre), torch.rand(count, 3, generator=generator), 0.12
        )
        for count, centre in ((num_head, [0.0, 0.0, 0.0]), (num_head // 3, [0.0, 1.2, 5.0]))
    )
    return SpeakerState(
        head=head, torso=torso, identity=normal(6),
        aligner=Aligner(torch.tensor([0.6, 0.5, 0.7]), torch.tensor([0.1, 0.0, -0.1])),
        torso_centre=torch.tensor([0.0, 1.2, 5.0]), torso_half_size=1.5,
        plate=torch.full((SIZE_PX, SIZE_PX, 3), 0.4),
        camera=Intrinsics(fx=50.0, fy=50.0, cx=16.0, cy=16.0, width=SIZE_PX, height=SIZE_PX), mean_pose=pose,
        take=Motion(poses, bodies, torch.sin(torch.arange(POSES)[:, None] / 5 + torch.arange(6))), meta={"speaker": "anna"},
    )  # fmt: skip


def avatar(num_head: int = 400) -> Avatar:
    return Avatar(network(), speaker(num_head), Backend("cpu", "cpu", 1), batch_frames=16)


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose colour and loudness change four times a second, 16 kHz."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 16_000)
    loudness = np.repeat(rng.uniform(0, 0.3, count // 4000 + 1), 4000)[:count]
    noise = rng.standard_normal(count)
    smooth = np.repeat(rng.uniform(0, 1, count // 4000 + 1), 4000)[:count] * np.concatenate([[0], noise[:-1]])
    return (loudness * (noise + smooth)).clip(-1, 1).astype(np.float32)


def project(root: Path, jobs: dict[str, np.ndarray], rate_hz: int = 16_000) -> Project:
    """A project with one trained speaker and one job for each piece of speech."""
    made = Project(root)
    anna = Speaker(id="anna", raw="data/raw/anna.mp4", sha256="0" * 64, group="cohort")
    Registry({"anna": anna}).save(made.speakers_file)
    network().save(made.shared, {})
    speaker().save(made.speaker(anna).model)
    entries = {}
    for name, samples in jobs.items():
        path = made.speech(f"{name}.wav")
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate_hz, subtype="FLOAT")
        entries[name] = {"speaker": "anna", "group": "cohort", "audio": str(path.relative_to(root))}
    made.synth_file.write_text(yaml.safe_dump({"jobs": entries}))
    return made


def main(root: Path, job: str, stop_after: int | None) -> None:
    from gensync_core.media.video import VideoWriter
    from gensync_core.stages.synth import run

    torch.set_num_threads(1)
    if stop_after is not None:
        write = VideoWriter.write

        def write_and_die(self: VideoWriter, frame: np.ndarray) -> None:
            write(self, frame)
            if self.num_frames == stop_after:
                os.kill(os.getpid(), 9)

        VideoWriter.write = write_and_die
    run(Project(root), job, params("fast"))
    status = Path("/proc/self/status").read_text().splitlines()  # getrusage counts the parent, too
    sys.stdout.write(f"{int(next(line.split()[1] for line in status if line.startswith('VmHWM'))) / 1024}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
