"""What a joint training holds in memory, and what a step costs, over the number of speakers and the length of their clips.

    python benchmarks/memory.py --work FOLDER [--rows scaling long] [--steps 40] [--json FILE]

Speakers are made up: a moving pattern for a picture, labels, poses, landmarks and speech features of the right shapes, and
coarse Gaussians. On disk they lie as in a project whose clips have been decoded already (`media.frames.FrameStore` keeps
decoded frames raw, in `.gensync/scratch`), and each row trains on them as the joint stage does, checkpoints, preview and all,
in a fresh process. They lie in FOLDER/memory, which is removed afterwards. A row says

- ms: of a step, the median after the first quarter of the steps, by the wall clock and by the process's own;
- start, peak: memory of the process before anything is read, and the most of it up to the end, in MB (resident). Pages that
  the system keeps of files belong to nobody and are not among them: `frames` says how large the frames on disk are;
- growth: of the peak for each speaker more, against the row with the fewest speakers of the same size, in MB;
- state: one speaker's file (Gaussians, code, take of head motion, plate), in MB; trained: what of it is trained, four times
  over: value, gradient, two moments; frame data: poses, landmarks, their motion and speech features as training holds them.

With one speaker a step is cheaper: nobody is there to swap identities with, and both images share their motion terms.

Marks: a step costs the same for any number of speakers; 3 speakers of 5 minutes at 512 px stay below 6 GB.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from laboratory import RESULTS, run_apart, table, write_results
from PIL import Image
from process_memory import peak_bytes, resident_bytes
from render import made_up_speaker

from gensync_core.artefacts import sha256_of, write_json, write_tensors
from gensync_core.audio.waveform import FPS
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.face.regions import Region
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.geometry.motion import Motion
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState, fit_aligner
from gensync_core.params import Params, load_params
from gensync_core.paths import Project
from gensync_core.speakers import Registry, Speaker
from gensync_core.training.heap import keep_freed_memory
from gensync_core.training.joint import train_joint
from gensync_core.training.objective import motion_landmarks

ROOT = Path(__file__).resolve().parents[1]
FEATURES = 384
MARK_MB, LONG_MINUTES = 6000.0, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One row: so many speakers, the length of their clips, and the Gaussians of each."""

    speakers: int
    minutes: float
    size_px: int
    gaussians: int

    @property
    def frames(self) -> int:
        """Of each clip."""
        return round(self.minutes * 60 * FPS)


ROWS = {
    "scaling": [Case(speakers=count, minutes=0.5, size_px=128, gaussians=8_000) for count in (1, 3, 6, 12)],
    "long": [Case(speakers=3, minutes=5, size_px=512, gaussians=30_000)],
}


def make_project(root: Path, case: Case) -> Project:
    """The files that the joint stage reads."""
    project = Project(root)
    ids = [f"speaker{number:02d}" for number in range(case.speakers)]
    speakers = {name: Speaker(id=name, raw=f"data/raw/{name}.mp4", sha256="0" * 64, group="cohort") for name in ids}
    Registry(speakers).save(project.speakers_file)
    for seed, speaker in enumerate(speakers.values()):
        make_speaker(project, speaker, case, seed)
        print(f"made {speaker.id}: {case.frames} frames of {case.size_px} px", file=sys.stderr, flush=True)
    return project


def make_speaker(project: Project, speaker: Speaker, case: Case, seed: int) -> None:
    """What preprocessing and coarse would have written, and the decoded frames."""
    paths, rng, count = project.speaker(speaker), np.random.default_rng(seed), case.frames
    state = made_up_speaker(case.gaussians, case.size_px)
    mesh = canonical_landmarks().astype(np.float32)
    K = state.camera.matrix().astype(np.float32)
    turns = 0.05 * np.sin(np.arange(count)[:, None] / 12 + np.arange(3) + seed).astype(np.float32)
    poses = np.repeat(state.mean_pose.numpy()[None], count, axis=0)
    poses[:, :3, 3] += turns
    bodies = np.repeat(np.eye(4, dtype=np.float32)[None], count, axis=0)
    motion = Motion(*(torch.from_numpy(part) for part in (poses, bodies, np.tile(turns, 2))))
    seen = mesh @ poses[0, :3, :3].T + poses[:, None, :3, 3]
    flat = seen @ K.T
    apertures = (0.2 + 0.2 * np.sin(np.arange(count) / 3)).astype(np.float32)
    paths.folder.mkdir(parents=True)
    write_tensors(
        paths.track_arrays,
        {
            **{name: part.numpy() for name, part in motion._asdict().items()},
            "landmarks_px": np.concatenate([flat[..., :2] / flat[..., 2:], seen[..., 2:]], axis=-1),
            "canonical_landmarks": mesh,
            "canonical_motion": 0.05 * apertures[:, None, None] * np.ones_like(seen),
        },
        {"reference_frame": 0},
    )
    pd.DataFrame({"aperture": apertures}).to_parquet(paths.track_table)
    features = {
        name: rng.standard_normal((rows, FEATURES), dtype=np.float32) for name, rows in (("features", count), ("silence", 750))
    }
    write_tensors(paths.audio, features)
    write_json(paths.camera, asdict(state.camera))
    Image.fromarray(np.full((case.size_px, case.size_px, 3), 128, np.uint8)).save(paths.background)
    state = replace(state, take=motion.take(slice(0, round(count * 10 / 11))), aligner=fit_aligner(mesh, mesh))
    state.meta = {"speaker": speaker.id}
    state.save(paths.coarse)
    for clip, kind, pictures in ((paths.clip, "rgb", patterns(case, seed)), (paths.masks, "gray", labels(case))):
        clip.write_text(f"{kind} of {speaker.id}")
        # Where `FrameStore.open` looks for a clip that has been decoded before.
        decoded = project.scratch / "frames" / "frames" / f"{sha256_of(clip)[:20]}-{kind}.npy"
        write_frames(decoded, count, pictures)


def patterns(case: Case, seed: int) -> Iterator[np.ndarray]:
    """A picture of smooth waves that wander: [H, W, 3] bytes, for ever."""
    size = case.size_px
    waves = np.sin(np.arange(2 * size) / (9 + seed))[:, None] * np.sin(np.arange(2 * size) / 14)
    canvas = np.stack([waves * 60 + 128, waves.T * 60 + 128, 255 - (waves * 60 + 128)], axis=-1).astype(np.uint8)
    frame = 0
    while True:
        start = frame % size
        yield canvas[start : start + size, start : start + size]
        frame += 1


def labels(case: Case) -> Iterator[np.ndarray]:
    """A round face over a body: [H, W] labels, for ever."""
    size = case.size_px
    y, x = np.mgrid[:size, :size] / size - 0.5
    picture = np.where(y > 0.3, int(Region.TORSO), int(Region.BACKGROUND))
    picture[(x / 0.25) ** 2 + (y / 0.33) ** 2 < 1] = int(Region.FACE)
    picture = picture.astype(np.uint8)
    while True:
        yield picture


def write_frames(path: Path, count: int, pictures: Iterator[np.ndarray]) -> None:
    """A .npy file of `count` frames, written one by one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(pictures)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *first.shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(first.tobytes())
        for _ in range(count - 1):
            file.write(next(pictures).tobytes())


def train(root: Path, params: Params) -> dict[str, float]:
    """Train as the joint stage does; times of the steps in ms and memory in MB. To be called in a process of its own."""
    keep_freed_memory()
    start_mb, walls, clocks = resident_bytes() / 1e6, [], []
    project, backend = Project(root), choose_backend(params.render)
    paths = [project.speaker(speaker) for speaker in project.registry().speakers.values()]
    clips = [ClipDataset.open(path, project.scratch / "frames", params.split) for path in paths]
    states = [SpeakerState.load(path.coarse, backend.device) for path in paths]

    def watch(_step: int, _network: GenSync) -> None:
        walls.append(time.perf_counter())
        clocks.append(time.process_time())

    train_joint(
        clips, states, params.model, params.joint, params.loss, backend, params.seed, project.scratch / "joint", watch=watch
    )
    for path, state in zip(paths, states, strict=True):
        state.save(path.model)
    wall, own = (np.diff(times[: params.joint.steps])[params.joint.steps // 4 :] for times in (walls, clocks))
    parts = [*states[0].head.named(), *states[0].torso.named(), ("identity", states[0].identity)]
    count, moving = clips[0].num_frames, 3 * (2 * len(canonical_landmarks()) + len(motion_landmarks()))
    return {
        "ms_wall": 1e3 * float(np.median(wall)),
        "ms_own": 1e3 * float(np.median(own)),
        "start_mb": start_mb,
        "peak_mb": peak_bytes() / 1e6,
        "state_mb": paths[0].model.stat().st_size / 1e6,
        "trained_mb": 4 * sum(tensor.nbytes for _, tensor in parts) / 1e6,
        "frame_data_mb": 4 * count * (moving + FEATURES + 2 * 16 + 6) / 1e6,
    }


def measure(work: Path, case: Case, params: Params) -> dict[str, Any]:
    """One row; what is made for it lies below `work` only as long as it is needed."""
    frames_gb = case.speakers * case.frames * case.size_px**2 * 4 / 1e9
    work.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(work).free / 1e9
    if free_gb < 1.1 * frames_gb:
        raise SystemExit(f"{work}: {case.speakers} x {case.minutes:g} min need {frames_gb:.1f} GB, {free_gb:.1f} GB are free")
    folder = work / "memory"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        project = make_project(folder, case)
        found = run_apart(train, project.root, params).result
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {**asdict(case), "steps": params.joint.steps, "threads": params.render.threads, "frames_gb": frames_gb, **found}


def growth_mb(row: Mapping[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """How much more the peak is for each speaker more than in the row with the fewest, or None where it is that row."""
    alike = [other for other in rows if all(other[key] == row[key] for key in ("minutes", "size_px", "gaussians"))]
    fewest = min(alike, key=lambda other: other["speakers"])
    more = row["speakers"] - fewest["speakers"]
    return (row["peak_mb"] - fewest["peak_mb"]) / more if more else None


COLUMNS = (
    ("speakers", "speakers", "d"), ("minutes", "minutes", "g"), ("size_px", "px", "d"), ("gaussians", "Gaussians", "d"),
    ("steps", "steps", "d"), ("ms_wall", "ms", ".1f"), ("ms_own", "ms own", ".1f"), ("start_mb", "start", ".0f"),
    ("peak_mb", "peak", ".0f"), ("growth_mb", "growth", ".1f"), ("state_mb", "state", ".1f"),
    ("trained_mb", "trained", ".1f"), ("frame_data_mb", "frame data", ".1f"), ("frames_gb", "frames GB", ".1f"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for made-up clips: 24 GB for the long row")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, default=40, help="on heads; a quarter as many on torsos after them")
    parser.add_argument("--threads", type=int, default=1, help="of the kernels")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of memory.csv")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    arguments = parser.parse_args()
    stored = load_params(ROOT / "params.yaml")
    schedule = replace(stored.joint, steps=arguments.steps, torso_steps=arguments.steps // 4)
    params = replace(stored, joint=schedule, render=replace(stored.render, threads=arguments.threads))
    rows: list[dict[str, Any]] = []
    for case in (case for name in arguments.rows for case in ROWS[name]):
        rows.append(measure(arguments.work, case, params))
        rows = [{**row, "growth_mb": growth_mb(row, rows)} for row in rows]
        print(table(rows[-1:], COLUMNS), flush=True)
    print("\n" + table(rows, COLUMNS))
    for row in rows:
        if row["minutes"] >= LONG_MINUTES:
            verdict = "below" if row["peak_mb"] < MARK_MB else "ABOVE"
            print(
                f"{row['speakers']} x {row['minutes']:g} min at {row['size_px']} px: "
                f"{row['peak_mb']:.0f} MB, {verdict} the mark of {MARK_MB:.0f} MB"
            )
    print(write_results("memory", rows, arguments.json, arguments.results))


if __name__ == "__main__":
    main()
