"""How many frames a second: full mode and fast mode over Gaussians and resolution, and how near fast frames are to full ones?

    python benchmarks/render.py [--json FILE] [--threads 1] [--quick] [--avatar PROJECT SPEAKER] [--results FOLDER]

Prints a table and writes `render.csv` and `render.png` into the results. Avatars are made up: a head and a torso of flat
Gaussians, and the network of `params.yaml` with fields that move. With `--avatar` a trained speaker of a project comes first.
A row says

- full, fast: frames a second from features to finished bytes, encoding not among them; the fastest of several runs, the
  two modes in turn. With one thread its own time counts, not that of others on the same cores;
- ratio: fast over full, from the same run;
- in full: share of fast frames that the bases did not hold and that were rendered in full;
- raster: share of a fast frame that rasterizing and composing take, which no mode changes;
- bases: seconds until fast mode is ready, with the measurement of its likeness;
- PSNR: of fast frames to full ones on frames that the bases were not made of, mean and least, in dB;
- error: of the fields' outputs on those frames, mean and largest, in units of the outputs.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from laboratory import RESULTS, table, write_results
from matplotlib.figure import Figure
from rasterize import head_scene

from gensync_core.artefacts import read_tensors
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.rasterize import Backend, choose_backend
from gensync_core.gaussians.render_params import RenderParams
from gensync_core.gaussians.spherical_harmonics import SH_C0
from gensync_core.geometry.camera import Intrinsics
from gensync_core.geometry.motion import Motion
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import Aligner, SpeakerState
from gensync_core.params import load_params
from gensync_core.paths import Project
from gensync_core.rendering.compositor import render_layer
from gensync_core.rendering.deformation import Field
from gensync_core.rendering.fast_field import FastField
from gensync_core.rendering.picture import picture
from gensync_core.rendering.synthesis import Avatar, load_avatar
from gensync_core.training.heap import keep_freed_memory

SCENES = ((8_000, 128), (20_000, 256), (60_000, 512))
NUM_QUICK = 1
FEATURES, POSES, SPEECH_FRAMES = 384, 200, 400
FRAMES, REPEATS = 24, 7
LONGER = 250
"""Frames over which it is counted what fast mode renders in full."""
ROOT = Path(__file__).resolve().parents[1]


def cloud_of(scene: dict[str, torch.Tensor]) -> GaussianCloud:
    return GaussianCloud(
        scene["means"],
        scene["quats"],
        scene["scales"].log(),
        torch.logit(scene["opacities"]),
        ((scene["colors"] - 0.5) / SH_C0)[:, None],
    )


def made_up_network() -> GenSync:
    torch.manual_seed(0)
    network = GenSync(load_params(ROOT / "params.yaml").model, FEATURES)
    with torch.no_grad():
        for field, last in (
            (network.head_field, network.head_field.last),
            (network.torso_field, network.torso_field.layers[-1]),
        ):
            field.triplane.table.normal_(std=0.1)
            last.weight.normal_(std=0.1)
        network.head_field.frame_modulation.affine.weight.normal_(std=0.1)
    return network


def made_up_speaker(count: int, size_px: int) -> SpeakerState:
    scene, viewmats, Ks = head_scene(count, size_px)
    cloud = cloud_of(scene)
    is_torso = torch.arange(count) < count * 15 // 100  # as `head_scene` makes them
    head, torso = (GaussianCloud(**{name: part[mask] for name, part in cloud.named()}) for mask in (~is_torso, is_torso))
    pose = viewmats[0]
    poses = pose.repeat(POSES, 1, 1)
    poses[:, :3, 3] += 0.05 * torch.sin(torch.arange(POSES)[:, None] / 12 + torch.arange(3))
    bodies = torch.eye(4).repeat(POSES, 1, 1)
    bodies[:, :2, 2] += 0.01 * torch.sin(torch.arange(POSES)[:, None] / 14 + torch.arange(2))
    fx, fy, cx, cy = (float(Ks[0][at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return SpeakerState(
        head=head,
        torso=replace(torso, means=torso.means + pose[:3, 3]),
        identity=torch.randn(load_params(ROOT / "params.yaml").model.identity_size, generator=torch.Generator().manual_seed(0)),
        aligner=Aligner(torch.full((3,), 0.7), torch.zeros(3)),
        torso_centre=torch.tensor([0.0, 1.3, 4.3]),
        torso_half_size=2.0,
        plate=torch.full((size_px, size_px, 3), 0.5),
        camera=Intrinsics(fx=fx, fy=fy, cx=cx, cy=cy, width=size_px, height=size_px),
        mean_pose=pose,
        take=Motion(poses, bodies, torch.sin(torch.arange(POSES)[:, None] / 9 + torch.arange(6))),
        meta={},
    )


def made_up_features() -> np.ndarray:
    """A slow random walk in a few dimensions: speech features change from frame to frame, not at random."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(SPEECH_FRAMES + 8, 12))
    smooth = np.stack([np.convolve(column, np.hanning(9) / 2, mode="valid") for column in noise.T], axis=1)
    return (smooth @ rng.normal(size=(12, FEATURES)) / 3).astype(np.float32)


def seconds_a_frame(avatar: Avatar, field: Field, features: np.ndarray) -> float:
    avatar.field, clock = field, clock_of(avatar)
    start = clock()
    count = sum(1 for _ in avatar.stream([features[:FRAMES]]))
    return (clock() - start) / count


def clock_of(avatar: Avatar) -> Callable[[], float]:
    return time.thread_time if avatar.backend.threads == 1 and avatar.backend.device == "cpu" else time.perf_counter


def raster_seconds(avatar: Avatar) -> float:
    """Rasterizing and composing one frame, whatever deformed it."""
    state, clock, times = avatar.state, clock_of(avatar), []
    for _ in range(REPEATS):
        start = clock()
        for _ in range(FRAMES):
            head = render_layer(state.head, state.mean_pose, state.camera, avatar.backend)
            torso = render_layer(state.torso, torch.eye(4, device=state.plate.device), state.camera, avatar.backend)
            picture(head, torso, state.plate, avatar.backend.threads)
        times.append((clock() - start) / FRAMES)
    return min(times)


def outside_share(avatar: Avatar, features: np.ndarray) -> float:
    """Share of the frames of some speech that are rendered in full, in fast mode."""
    if not isinstance(avatar.field, FastField):
        return 1.0
    before = avatar.field.num_outside
    count = sum(1 for _ in avatar.stream([features[:LONGER]]))
    return (avatar.field.num_outside - before) / count


@torch.no_grad()
def measure(name: str, avatar: Avatar, features: np.ndarray) -> dict[str, Any]:
    full = avatar.field
    found = avatar.quicken(features)
    fast = avatar.field
    times: dict[str, list[float]] = {"full": [], "fast": []}
    for _ in range(REPEATS):
        for mode, field in (("full", full), ("fast", fast)):
            times[mode].append(seconds_a_frame(avatar, field, features))
    best = {mode: min(values) for mode, values in times.items()}
    likeness = found.likeness
    assert likeness is not None
    return {
        "avatar": name, "head": len(avatar.state.head), "torso": len(avatar.state.torso), "size_px": avatar.resolution,
        "backend": avatar.backend.name, "threads": avatar.backend.threads, "mode": found.mode, "reason": found.reason,
        "full_fps": 1 / best["full"], "fast_fps": 1 / best["fast"], "ratio": best["full"] / best["fast"],
        "outside_share": outside_share(avatar, features),
        "raster_share": raster_seconds(avatar) / best["fast"], **likeness._asdict(),
    }  # fmt: skip


COLUMNS = (
    ("avatar", "avatar", "s"), ("head", "head", "d"), ("torso", "torso", "d"), ("size_px", "px", "d"),
    ("full_fps", "full fps", ".1f"), ("fast_fps", "fast fps", ".1f"), ("ratio", "ratio", ".2f"),
    ("outside_share", "in full", ".0%"), ("raster_share", "raster", ".0%"),
    ("seconds", "bases s", ".1f"), ("psnr_mean", "PSNR", ".1f"), ("psnr_min", "least", ".1f"),
    ("error_mean", "error", ".4f"), ("error_max", "largest", ".3f"),
)  # fmt: skip


def avatars(
    backend: Backend, scenes: tuple[tuple[int, int], ...], trained: list[str] | None
) -> Iterator[tuple[str, Avatar, np.ndarray]]:
    """Name, avatar and features of some speech, one after the other."""
    if trained:
        project = Project(Path(trained[0]))
        paths = project.speaker(project.registry().get(trained[1]))
        avatar = load_avatar(project.shared, paths.model, backend)
        features = next(iter(array for array in read_tensors(paths.audio)[0].values() if array.ndim == 2))
        yield trained[1], avatar, features
    for count, size_px in scenes:
        yield "made up", Avatar(made_up_network(), made_up_speaker(count, size_px), backend), made_up_features()


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Frames a second of both modes over the number of Gaussians, and how near fast frames are to full ones."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    speed, likeness = figure.subplots(1, 2)
    rows = sorted(rows, key=lambda row: row["head"] + row["torso"])
    counts = [row["head"] + row["torso"] for row in rows]
    for mode in ("full", "fast"):
        speed.plot(counts, [row[f"{mode}_fps"] for row in rows], "o-", label=mode)
    for count, row in zip(counts, rows, strict=True):
        speed.annotate(f"{row['size_px']} px", (count, row["fast_fps"]), (4, 4), textcoords="offset points", fontsize=7)
    speed.axhline(25, color="gray", linestyle="--", linewidth=1, label="as fast as it is watched")
    speed.set(xlabel="Gaussians", ylabel="frames a second", yscale="log")
    speed.legend()
    likeness.plot(counts, [row["psnr_mean"] for row in rows], "o-", label="mean")
    likeness.plot(counts, [row["psnr_min"] for row in rows], "o-", label="least")
    likeness.set(xlabel="Gaussians", ylabel="PSNR of fast to full frames, dB")
    likeness.legend()
    for axes in (speed, likeness):
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write all figures here")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV and the PNG")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="only the smallest made-up avatar")
    parser.add_argument("--avatar", nargs=2, metavar=("PROJECT", "SPEAKER"), help="a trained speaker, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    backend = choose_backend(RenderParams(backend="auto", threads=arguments.threads))
    rows = []
    for name, avatar, features in avatars(backend, SCENES[: NUM_QUICK if arguments.quick else None], arguments.avatar):
        row = measure(name, avatar, features)
        rows.append(row)
        print(f"{name}, {row['size_px']} px: {row['full_fps']:.1f} / {row['fast_fps']:.1f} frames a second", flush=True)
    print(table(rows, COLUMNS))
    csv = write_results("render", rows, arguments.json, arguments.results)
    plot(rows, csv.with_suffix(".png"))


if __name__ == "__main__":
    main()
