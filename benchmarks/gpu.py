"""How long until a picture is good, and how many frames a second, on a GPU at 512 px?

    python benchmarks/gpu.py --clips ANCHOR_EN.mp4 ANCHOR_DE.mp4 [--work FOLDER] [--json FILE]

One command: prepares the speakers, trains them together by the full schedule with the gsplat renderer, and scores them on the
last eleventh of their clips, which training never saw. Needs CUDA; without it the command says so and ends with exit code 2.
`--dry-run-on-cpu` runs the same at 128 px by a schedule of seconds: it shows that the command works, and its numbers mean
nothing.

While the training runs, its clock stands still every `--every` steps, and some held-out frames of each speaker are rendered.
A row says

- to N dB: minutes of training, with this speaker's coarse start, until the head over the true torso reached that PSNR;
- coarse, joint: minutes; joint is one training for all speakers together;
- a speaker: minutes a speaker, (all coarse starts + joint) / speakers, the figure for the marks;
- PSNR (head over true torso, then whole frame), LMD, sync: on all held-out frames in the end, see `evaluation/figures.py`;
- full, fast: frames a second from features to bytes in memory, see `benchmarks/render.py`;
- GPU MB: the most that tensors took on the GPU during the training, and during rendering.

Marks: below 40 minutes a speaker and above 125 frames a second (GSTalker); then 11 minutes and 300 frames a second.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from laboratory import RESULTS, Cost, Laboratory, Overrides, Trained, add_arguments, table, write_results
from render import measure

from gensync_core.artefacts import read_json
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.evaluation.image_metrics import head_over_truth, psnr, unit_range
from gensync_core.face.regions import HEAD
from gensync_core.gaussians.backends.gsplat_cuda import why_not_available
from gensync_core.gaussians.rasterize import Backend
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.rendering.synthesis import Avatar
from gensync_core.training.joint import train_joint

LEVELS_DB = (28, 30, 32)
MARKS = ((40.0, 125.0), (11.0, 300.0))
"""Minutes a speaker, and frames a second."""
LOOKS = 16
"""Held-out frames of each speaker that are rendered while the training's clock stands still."""
NO_CUDA_EXIT_CODE = 2

FULL: Overrides = {
    "render": {"backend": "gsplat"},
    "model": {"triplane_levels": 12, "triplane_finest": 512, "triplane_log2_table": 17},
    "coarse": {"steps": 2_500, "head_gaussians": 40_000, "torso_gaussians": 10_000},
    "joint": {"steps": 22_000, "torso_steps": 2_000, "batch_size": 4, "network_rate": 5.0e-4},
}
DRY: Overrides = {
    "ingest": {"max_seconds": 4.0},
    "render": {"backend": "cpu"},
    "audio": {"encoder": "log-mel"},
    "model": {"triplane_levels": 6, "triplane_log2_table": 12},
    "coarse": {"steps": 20, "head_gaussians": 1_500, "torso_gaussians": 500},
    "joint": {"steps": 24, "torso_steps": 6, "batch_size": 4, "motion_pairs": 4},
    "evaluate": {"max_frames": 6},
}


class Curve:
    """Held-out PSNR of every speaker along a training, by a clock that stands still while it is measured."""

    def __init__(
        self, clips: Mapping[str, ClipDataset], states: Mapping[str, SpeakerState], backend: Backend, every: int, last: int
    ) -> None:
        self._clips, self._states, self._backend, self._every, self._last = clips, states, backend, every, last
        self.rows: list[dict[str, Any]] = []
        self._looking_s, self._start = 0.0, time.monotonic()

    @property
    def minutes(self) -> float:
        """Of training so far."""
        if self._backend.device == "cuda":
            torch.cuda.synchronize()
        return (time.monotonic() - self._start - self._looking_s) / 60

    def __call__(self, step: int, network: GenSync) -> None:
        """To be called after every step."""
        if step % self._every and step != self._last:
            return
        minutes, begin = self.minutes, time.monotonic()
        for speaker, clip in self._clips.items():
            avatar = Avatar(network, self._states[speaker], self._backend)
            self.rows.append({"speaker": speaker, "step": step, "minutes": minutes, "psnr": held_out_psnr(avatar, clip)})
        network.train()
        shown = ", ".join(f"{row['speaker']} {row['psnr']:.2f} dB" for row in self.rows[-len(self._clips) :])
        print(f"step {step}, {minutes:.2f} min: {shown}", file=sys.stderr, flush=True)
        self._looking_s += time.monotonic() - begin

    def minutes_to(self, speaker: str, level_db: float) -> float | None:
        """Until a speaker first was as good as that; None: never."""
        return next((row["minutes"] for row in self.rows if row["speaker"] == speaker and row["psnr"] >= level_db), None)


def held_out_psnr(avatar: Avatar, clip: ClipDataset) -> float:
    """Mean PSNR of the head over the true torso, over some held-out frames spread evenly."""
    count = min(LOOKS, clip.num_frames - clip.num_train)
    frames = np.linspace(clip.num_train, clip.num_frames - 1, count).round().astype(int)
    found, motion = [], clip.motion.take(frames)
    for index, rendered in zip(frames, avatar.render(clip.features.numpy(), motion, frames), strict=True):
        truth, is_head = clip.frames[int(index)], np.isin(clip.masks[int(index)], [int(region) for region in HEAD])
        composite = head_over_truth(rendered.image, rendered.head_image, rendered.head_alpha, truth, is_head)
        found.append(psnr(composite, unit_range(truth)))
    return float(np.mean(found))


def train(laboratory: Laboratory, speakers: Sequence[str], every: int) -> tuple[Trained, Curve]:
    """Train the speakers jointly; the cost is without the time in which the clock stood still."""
    params, backend = laboratory.params, laboratory.backend
    clips = {speaker: laboratory.clip(speaker) for speaker in speakers}
    states = {speaker: laboratory.coarse(speaker) for speaker in speakers}
    total = params.joint.steps + params.joint.torso_steps
    started, curve = time.process_time(), Curve(clips, states, backend, every, total)
    with tempfile.TemporaryDirectory() as scratch:
        network, _, _ = train_joint(
            list(clips.values()), list(states.values()), params.model, params.joint, params.loss, backend, params.seed,
            Path(scratch) / "joint", watch=curve,
        )  # fmt: skip
    cost = Cost(60 * curve.minutes, time.process_time() - started, total * params.joint.batch_size)
    return Trained(network, states, cost), curve


def coarse_minutes(laboratory: Laboratory, speaker: str) -> float:
    """What the coarse start took when it was last made."""
    record = read_json(laboratory.project.scratch.parent / "runs" / f"coarse-{speaker}.json")
    return float(record["seconds"]) / 60


def peak_gpu_mb(device: str) -> float | None:
    """The most that tensors took on the GPU since this was last asked; None on a CPU."""
    if device != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated() / 1e6
    torch.cuda.reset_peak_memory_stats()
    return peak


def run(laboratory: Laboratory, speakers: Sequence[str], every: int) -> tuple[list[dict[str, Any]], Curve]:
    """All rows, one a speaker."""
    device = laboratory.backend.device
    peak_gpu_mb(device)
    trained, curve = train(laboratory, speakers, every)
    training_mb, joint = peak_gpu_mb(device), trained.cost.seconds / 60
    coarse = {speaker: coarse_minutes(laboratory, speaker) for speaker in speakers}
    rows = []
    for speaker in speakers:
        reached = {level: curve.minutes_to(speaker, level) for level in LEVELS_DB}
        figures = laboratory.score(trained, speaker)
        peak_gpu_mb(device)
        avatar = Avatar(trained.network, trained.states[speaker], laboratory.backend)
        speed = measure(speaker, avatar, laboratory.clip(speaker).features.numpy())
        rows.append(
            {
                "speaker": speaker, "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
                "backend": laboratory.backend.name, "images": trained.cost.images,
                **{f"to_{level}_db": None if spent is None else spent + coarse[speaker] for level, spent in reached.items()},
                "coarse_min": coarse[speaker], "joint_min": joint, "minutes": (sum(coarse.values()) + joint) / len(speakers),
                **figures, **{key: value for key, value in speed.items() if key not in ("avatar", "backend")},
                "training_gpu_mb": training_mb, "rendering_gpu_mb": peak_gpu_mb(device),
            }
        )  # fmt: skip
    return rows, curve


COLUMNS = (
    ("speaker", "speaker", "s"), ("size_px", "px", "d"), ("head", "head", "d"), ("torso", "torso", "d"),
    *((f"to_{level}_db", f"to {level} dB", ".2f") for level in LEVELS_DB),
    ("coarse_min", "coarse", ".2f"), ("joint_min", "joint", ".2f"), ("minutes", "a speaker", ".2f"),
    ("psnr_head_over_truth", "PSNR", ".2f"), ("psnr_full", "full", ".2f"), ("lmd_px512", "LMD", ".2f"),
    ("aperture_r_gap", "sync", ".2f"), ("full_fps", "full fps", ".0f"), ("fast_fps", "fast fps", ".0f"),
    ("training_gpu_mb", "GPU MB", ".0f"), ("rendering_gpu_mb", "rendering", ".0f"),
)  # fmt: skip


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which marks were met."""
    minutes, fps = max(row["minutes"] for row in rows), min(max(row["full_fps"], row["fast_fps"]) for row in rows)
    return [
        f"{minutes:.1f} min a speaker, mark {most:g}: {'met' if minutes < most else 'missed'}; "
        f"{fps:.0f} frames a second, mark {least:g}: {'met' if fps > least else 'missed'}"
        for most, least in MARKS
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, size_px=512)
    parser.add_argument("--every", type=int, default=500, help="steps from one look at held-out frames to the next")
    parser.add_argument("--dry-run-on-cpu", action="store_true", help="tiny schedule at 128 px: does the command work?")
    arguments = parser.parse_args()
    dry, missing = arguments.dry_run_on_cpu, why_not_available()
    if missing is not None and not dry:
        print(f"this benchmark needs a GPU, and {missing}; --dry-run-on-cpu tries the command without one", file=sys.stderr)
        return NO_CUDA_EXIT_CODE
    torch.set_num_threads(1)
    changes: Overrides = {**(DRY if dry else FULL)}
    changes = {**changes, "ingest": {**changes.get("ingest", {}), "resolution": 128 if dry else arguments.size}}
    folder = arguments.work / ("gpu-dry" if dry else "gpu")
    laboratory = Laboratory.open(folder, arguments.clips, changes)
    speakers = [clip.stem for clip in arguments.clips] or laboratory.speakers
    rows, curve = run(laboratory, speakers, 8 if dry else arguments.every)
    print(table(rows, COLUMNS))
    print("a dry run: these numbers mean nothing" if dry else "\n".join(verdicts(rows)))
    results = folder / "results" if dry else RESULTS
    print(write_results("gpu_curve", curve.rows, None, results))
    print(write_results("gpu", rows, arguments.json, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
