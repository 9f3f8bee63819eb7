"""How near are tracked heads to the truth, and does a real head stand still once its movement is taken out?

    python benchmarks/tracking.py [--work FOLDER] [--clips FILE ...] [--size 512] [--quick] [--out FOLDER] [--json FILE]

Three trackers on the same landmarks of MediaPipe's face mesh:

- frames: a pose for each frame by itself, on the canonical face: no smoothness, no shape of one's own;
- landmarks: the adjustment of the whole clip, from landmarks alone;
- skin: the same with points of the skin that are followed by their pixels, as the stage does it.

Against truth: the sample speakers (20 s each), and their portraits on the canonical mesh and with their own shape: turning by
15 degrees; still while speaking and blinking; still and blinking all the time. Columns:

- rotation: mean error, degrees, once a constant turn of the head's frame is taken out: what straight ahead is for a face is a
  convention, and stays what it is for the whole clip; `as it is`: with it;
- translation: mean error over the distance, percent, once a constant shift and scale are taken out (one camera does not tell a
  large head from a near one); `as it is`: with them;
- jitter: mean second difference of the rotation, less the true one, degrees.

Real clips (`--clips`, cut by the ingest stage): frames are seen from straight ahead by their poses, and patches of nose bridge
and forehead are aligned with the average of all frames. Columns: mean deviation of the patch from its mean place, and mean
second difference of its place, both px of the clip; how many frames could be aligned; contrast: deviation of the averages'
Laplacian in the upper face, more is sharper. The averages go to `--out` as PNG, never into a repository of code.

Marks: rotation 1.0 degree, translation 1 %, jitter 0.05 degrees where the true head is still. `tracking.csv` and
`stillness.csv` go into the results.
"""

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from known_heads import KINDS, known_head
from laboratory import RESULTS, SAMPLE_SECONDS, SAMPLE_SPEAKERS, add_arguments, table, write_results
from PIL import Image

from gensync_core.artefacts import read_tensors
from gensync_core.face import regions
from gensync_core.face.landmarks import follow_face
from gensync_core.face.skin_points import PX_PER_DM, FrontView, SkinFollower
from gensync_core.face.torso_tracker import reference_frame
from gensync_core.face.track_params import TrackParams
from gensync_core.face.tracker import Track, first_track, track
from gensync_core.geometry.rotation import angle_between, matrix_to_rotvec
from gensync_core.media.video import iter_frames, iter_gray, probe
from gensync_core.params import load_params
from gensync_core.paths import Project
from gensync_core.progress import progress
from gensync_core.samples import make_sample
from tasks import registration
from tasks.workspace import create_workspace, source_root

ROOT = Path(__file__).resolve().parents[1]
MARKS = {"rotation_deg": 1.0, "translation_pct": 1.0, "jitter_deg": 0.05}
TRACKERS = ("frames", "landmarks", "skin")
STAGE = TRACKERS[-1]
FREE = 1e3
PATCHES = {"nose": ((6, 197), 0.15), "forehead": ((151,), 0.2)}
"""Landmarks in the middle of a patch, and half its side in dm."""
MAX_SHIFT_PX = 20.0
BLUR_PX = 5
CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)


def find_landmarks(clip: Path) -> np.ndarray:
    """Of every frame, [T, 478, 3]; NaN where there is no face. Kept beside the clip."""
    kept = clip.with_suffix(".landmarks.npy")
    if kept.exists() and kept.stat().st_mtime > clip.stat().st_mtime:
        return np.load(kept)
    with progress(f"landmarks {clip.stem}", probe(clip).num_frames) as bar:
        landmarks = follow_face(iter_frames(clip), bar.advance).landmarks_px
    np.save(kept, landmarks)
    return landmarks


def track_all(clip: Path, params: TrackParams) -> dict[str, Track]:
    """The clip as each of `TRACKERS` sees it."""
    landmarks, size = find_landmarks(clip), probe(clip)
    confidence = np.asarray(np.isfinite(landmarks).all(axis=(1, 2)), dtype=np.float32)
    alone = replace(params, rotation_acceleration_deg=FREE, translation_acceleration_dm=FREE, shape_sigma_dm=1 / FREE)
    frames, by_landmarks = (track(landmarks, confidence, size.width, size.height, choice) for choice in (alone, params))
    first = first_track(landmarks, size.width, size.height, params)
    start = reference_frame(first.head_to_camera)
    poses = first.head_to_camera
    reference = next(iter_gray(clip, start))
    follower = SkinFollower(FrontView(first.canonical_landmarks, first.camera), reference, poses[start])
    skin = follower.gather([follower.follow(frame, pose) for frame, pose in zip(iter_gray(clip), poses, strict=True)])
    return dict(
        zip(TRACKERS, (frames, by_landmarks, track(landmarks, confidence, size.width, size.height, params, skin)), strict=True)
    )


def accuracy(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Figures of poses [T, 4, 4] against the truth."""
    turns, true_turns = found[:, :3, :3].astype(np.float64), true[:, :3, :3].astype(np.float64)
    places, true_places = found[:, :3, 3].astype(np.float64), true[:, :3, 3].astype(np.float64)
    constant = _mean_rotation(turns.swapaxes(1, 2) @ true_turns)
    distance = np.linalg.norm(true_places, axis=1)
    off = np.linalg.norm(places - true_places, axis=1)
    left = np.linalg.norm(_without_gauge(turns, places, true_places) - true_places, axis=1)
    return {
        "rotation_deg": float(np.degrees(angle_between(turns @ constant, true_turns)).mean()),
        "rotation_as_is_deg": float(np.degrees(angle_between(turns, true_turns)).mean()),
        "translation_pct": 100 * float((left / distance).mean()),
        "translation_as_is_pct": 100 * float((off / distance).mean()),
        "jitter_deg": float(np.linalg.norm(_second_difference(turns) - _second_difference(true_turns), axis=1).mean()),
    }


def _mean_rotation(rotations: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(rotations.mean(axis=0))
    return (left * [1, 1, np.linalg.det(left @ right)]) @ right


def _without_gauge(turns: np.ndarray, places: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Places under the scale, and from the point of the head's frame, that suit the truth best.

    A point far from the head would explain a still head's distance by its turns: points are held near the frame's origin.
    """
    columns = np.concatenate([places[..., None], turns], axis=2)
    near = np.eye(4)[1:] * np.sqrt(len(true)) / 10
    system = np.concatenate([columns.reshape(-1, 4), near])
    solved = np.linalg.lstsq(system, np.concatenate([true.ravel(), np.zeros(3)]), rcond=None)[0]
    return columns @ solved


def _second_difference(turns: np.ndarray) -> np.ndarray:
    """[T - 2, 3] degrees."""
    return np.degrees(np.diff(matrix_to_rotvec(turns[1:] @ turns[:-1].swapaxes(1, 2)), axis=0))


@dataclass(frozen=True, slots=True)
class Sequence:
    """A clip with true poses."""

    name: str
    make: Callable[[], tuple[Path, np.ndarray]]
    still: bool = False


def sequences(folder: Path, size_px: int, *, quick: bool) -> list[Sequence]:
    """All that has a truth; `quick`: one portrait on the canonical mesh."""

    def sample(name: str) -> tuple[Path, np.ndarray]:
        clip = folder / f"{name}_{size_px}.mp4"
        truth = clip.with_name(f"{clip.stem}.truth.safetensors")
        if not truth.exists():
            make_sample(name, clip, seconds=SAMPLE_SECONDS, size=size_px)
        return clip, read_tensors(truth)[0]["head_to_camera"]

    def known(name: str, kind: str, canonical: bool) -> tuple[Path, np.ndarray]:
        head = known_head(name, kind, folder, canonical=canonical, size_px=size_px)
        return head.clip, head.head_to_camera

    found = [] if quick else [Sequence(f"{name}, sample", lambda name=name: sample(name)) for name in SAMPLE_SPEAKERS]
    for name in SAMPLE_SPEAKERS[: 1 if quick else None]:
        for canonical in (True,) if quick else (True, False):
            shape = "canonical mesh" if canonical else "own shape"
            found += [
                Sequence(
                    f"{name}, {shape}, {kind}",
                    lambda name=name, kind=kind, canonical=canonical: known(name, kind, canonical),
                    still=kind != "turning",
                )
                for kind in KINDS
            ]
    return found


def measure_truth(sequence: Sequence, params: TrackParams) -> list[dict[str, Any]]:
    """A row for each tracker."""
    clip, true = sequence.make()
    return [
        {"sequence": sequence.name, "still": sequence.still, "tracker": name, **accuracy(result.head_to_camera, true)}
        for name, result in track_all(clip, params).items()
    ]


class Stillness:
    """One tracker's frames from straight ahead: their average, and how patches lie over it."""

    def __init__(self, result: Track) -> None:
        whole = np.arange(regions.NUM_LANDMARKS) < regions.NUM_MESH_LANDMARKS
        self._view, self._result = FrontView(result.canonical_landmarks, result.camera, whole), result
        self._sum, self._count = np.zeros(()), 0
        self._shifts: dict[str, list[np.ndarray]] = {name: [] for name in PATCHES}
        self.frame_px = result.camera.fx / float(np.median(result.head_to_camera[:, 2, 3])) / PX_PER_DM

    def _seen(self, frame: np.ndarray, place: int) -> np.ndarray:
        return self._view.picture(frame, self._view.places(self._result.head_to_camera[place]))

    def add(self, frame: np.ndarray, place: int) -> None:
        """Put a frame into the average."""
        self._sum = self._sum + self._seen(frame, place).astype(np.float64)
        self._count += 1

    @functools.cached_property
    def average(self) -> np.ndarray:
        """[H, W, 3], bytes; of all that was added before it is asked for."""
        return np.rint(self._sum / self._count).astype(np.uint8)

    def _box(self, name: str) -> tuple[slice, slice]:
        landmarks, half = PATCHES[name]
        x, y = self._view.from_mesh(self._result.canonical_landmarks[list(landmarks)]).mean(axis=0)
        reach = half * PX_PER_DM
        rows, columns = (slice(max(0, round(middle - reach)), round(middle + reach)) for middle in (y, x))
        return rows, columns

    def compare(self, frame: np.ndarray, place: int) -> None:
        """Align a frame's patches with those of the average."""
        average = cv2.cvtColor(self.average, cv2.COLOR_RGB2GRAY)
        seen = cv2.cvtColor(self._seen(frame, place), cv2.COLOR_RGB2GRAY)
        for name, shifts in self._shifts.items():
            box = self._box(name)
            try:
                _, found = cv2.findTransformECC(
                    *(average[box], seen, _shift_to(box), cv2.MOTION_TRANSLATION, CRITERIA, np.full_like(seen, 255), BLUR_PX)
                )
                shift = (np.asarray(found) - _shift_to(box))[:, 2]
            except cv2.error:  # it does not converge
                shift = np.full(2, np.nan)
            shifts.append(shift if np.abs(shift).max() < MAX_SHIFT_PX else np.full(2, np.nan))

    def figures(self) -> dict[str, float]:
        """In px of the clip."""
        found: dict[str, float] = {}
        for name, shifts in self._shifts.items():
            places = np.array(shifts) * self.frame_px
            found[f"{name}_share"] = float(np.isfinite(places[:, 0]).mean())
            if not found[f"{name}_share"]:
                continue
            deviation = np.linalg.norm(places - np.nanmean(places, axis=0), axis=1)
            found[f"{name}_px"] = float(np.nanmean(deviation))
            found[f"{name}_jitter_px"] = float(np.nanmean(np.linalg.norm(np.diff(places, n=2, axis=0), axis=1)))
        gray = cv2.cvtColor(self.average, cv2.COLOR_RGB2GRAY)
        base = self._view.from_mesh(self._result.canonical_landmarks[[regions.NOSE_BASE]])[0, 1]
        return {**found, "contrast": float(cv2.Laplacian(gray[: int(base)], cv2.CV_64F).std())}


def _shift_to(box: tuple[slice, slice]) -> np.ndarray:
    return np.array([[1, 0, box[1].start], [0, 1, box[0].start]], np.float32)


def measure_stillness(clip: Path, name: str, params: TrackParams, out: Path) -> list[dict[str, Any]]:
    """A row for each tracker; writes the averages."""
    results = track_all(clip, params)
    views = {tracker: Stillness(result) for tracker, result in results.items()}
    for step in (Stillness.add, Stillness.compare):
        with progress(f"{step.__name__} {name}", probe(clip).num_frames) as bar:
            for place, frame in enumerate(iter_frames(clip)):
                for view in views.values():
                    step(view, frame, place)
                bar.advance()
    rows = []
    for tracker, view in views.items():
        out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.average).save(out / f"{name}_{tracker}.png")
        result = results[tracker]
        rows.append(
            {
                "clip": name, "tracker": tracker, "frames": len(result.confidence), "lost": int(result.interpolated.sum()),
                "focal_widths": result.camera.fx / result.camera.width, **view.figures(),
            }
        )  # fmt: skip
    return rows


def cut(project: Project, clip: Path) -> Path:
    """The clip as the ingest stage cuts it, unless it was cut before."""
    name = clip.stem.lower()
    if name not in project.registry().speakers:
        registration.add_speaker(project, clip, name, "cohort")
    target = project.speaker(project.registry().get(name)).clip
    if not target.exists():
        subprocess.run([sys.executable, "-m", "gensync_core", "ingest", "--speaker", name], cwd=project.root, check=True)
    return target


def verdicts(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Whether the stage meets the marks, by its worst sequence."""
    mine = [row for row in rows if row["tracker"] == STAGE]
    lines = []
    for key, mark in MARKS.items():
        counted = [row for row in mine if row["still"] or key != "jitter_deg"]
        worst = max(counted, key=lambda row: row[key])
        mean, met = float(np.mean([row[key] for row in counted])), "met" if worst[key] <= mark else "MISSED"
        lines.append(f"{key}: mean {mean:.3f}, worst {worst[key]:.3f} ({worst['sequence']}), mark {mark:g}: {met}")
    return lines


TRUTH_COLUMNS = (
    ("sequence", "sequence", "s"), ("tracker", "tracker", "s"), ("rotation_deg", "rotation", ".3f"),
    ("rotation_as_is_deg", "as it is", ".2f"), ("translation_pct", "translation %", ".3f"),
    ("translation_as_is_pct", "as it is", ".2f"), ("jitter_deg", "jitter", ".4f"),
)  # fmt: skip
STILL_COLUMNS = (
    ("clip", "clip", "s"), ("tracker", "tracker", "s"), ("frames", "frames", "d"), ("lost", "lost", "d"),
    ("focal_widths", "focal", ".2f"), ("nose_px", "nose px", ".3f"), ("nose_jitter_px", "jitter", ".3f"),
    ("nose_share", "share", ".2f"), ("forehead_px", "forehead px", ".3f"), ("forehead_jitter_px", "jitter", ".3f"),
    ("forehead_share", "share", ".2f"), ("contrast", "contrast", ".2f"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, size_px=512)
    parser.add_argument("--quick", action="store_true", help="of the sequences with truth, one portrait on the canonical mesh")
    parser.add_argument("--no-truth", action="store_true", help="real clips alone")
    parser.add_argument("--out", type=Path, help="folder of the averages; without: in the folder of the laboratory")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of tracking.csv and stillness.csv")
    arguments = parser.parse_args()
    folder, params = arguments.work / "tracking", load_params(ROOT / "params.yaml").track
    truth: list[dict[str, Any]] = []
    for sequence in [] if arguments.no_truth else sequences(folder / "known", arguments.size, quick=arguments.quick):
        start = time.monotonic()
        truth += measure_truth(sequence, params)
        print(f"{sequence.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if truth:
        print(table(truth, TRUTH_COLUMNS), *verdicts(truth), sep="\n", flush=True)
        print(write_results("tracking", truth, None, arguments.results))
    still: list[dict[str, Any]] = []
    project = create_workspace(folder / f"project{arguments.size}", source_root(), {"ingest": {"resolution": arguments.size}})
    for clip in arguments.clips:
        still += measure_stillness(cut(project, clip), clip.stem, params, arguments.out or folder / "averages")
        print(table(still[-len(TRACKERS) :], STILL_COLUMNS), file=sys.stderr, flush=True)
    if still:
        print(table(still, STILL_COLUMNS), write_results("stillness", still, None, arguments.results), sep="\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"truth": truth, "stillness": still}, indent=2) + "\n")


if __name__ == "__main__":
    main()
