"""How well is a sound's offset found from the mouth, and which maps find it?

    python benchmarks/sound_offset.py --fit GRID_FOLDER [--clips FILE ...] [--late FILE=SECONDS ...] [--write] [--work DIR]
                                      [--results DIR]

Fits the two linear maps of `footage/sound_offset.py` by canonical correlation on all clips of a folder of the GRID corpus
(people in sync; CC BY 4.0) and, on the clips, moves the sound by -0.4 to +0.4 s in every window of 8, 15 and 30 s: share of
windows whose offset is found within one and two frames, and share that is called certain though it is wrong by more.
"Unrelated" pairs the pictures of one clip with the sound of another. `--write` replaces the maps of the package. What was
watched is kept in the work folder, so that a second run takes seconds. Result: sound_offset.csv.
"""

import argparse
import csv
import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gensync_core.artefacts import atomic_path
from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME
from gensync_core.face.landmarks import FaceMesh, detect_faces
from gensync_core.footage import mouth_scan
from gensync_core.footage.findings import FaceBox, FaceSample, Footage
from gensync_core.footage.gate_params import MouthParams
from gensync_core.footage.sound_offset import (
    OffsetMaps,
    WatchedSpeech,
    measure_offset,
    mouth_distances,
    mouth_features,
    sound_features,
)
from gensync_core.media.probe import probe
from gensync_core.media.stretch import Stretch, stretch_frames, stretch_sound
from gensync_core.media.video import iter_frames

WINDOWS_S = (8, 15, 30)
SHIFTS = range(-10, 11, 5)
RIDGE = 1.0
NUM_PAIRS = 2
_SAMPLES_PER_SECOND = 2
_LONGEST_FRAMES = 75 * FPS


class Score(NamedTuple):
    """One line of the table: `windows` counts windows times shifts."""

    clip: str
    seconds: int
    windows: int
    within_1: float
    within_2: float
    certain: float
    certain_and_wrong: float


def main() -> None:
    """Fit, measure, print, write."""
    arguments = _arguments()
    grid = {path.stem: _watched(path, arguments.work) for path in sorted(arguments.fit.iterdir()) if path.is_file()}
    if not grid:
        sys.exit(f"{arguments.fit}: no clips in it")
    maps = fit(list(grid.values()))
    if arguments.write:
        with atomic_path(Path(mouth_scan.__file__).with_name("sound_offset.npz")) as temporary, temporary.open("wb") as file:
            np.savez(file, sound=maps.sound.astype(np.float32), mouth=maps.mouth.astype(np.float32))
    late = dict(item.rsplit("=", 1) for item in arguments.late)
    clips = {str(path): _watched(path, arguments.work) for path in arguments.clips}
    scores = []
    for seconds in WINDOWS_S:
        for name, clip in clips.items():
            scores += _shown(_score(Path(name).stem, clip, seconds, maps, float(late.get(name, 0))))
        scores += _shown(_score_unrelated(list(clips.values()), seconds, maps))
    arguments.results.mkdir(parents=True, exist_ok=True)
    with atomic_path(arguments.results / "sound_offset.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Score._fields)
        writer.writerows(scores)


def _shown(score: Score | None) -> list[Score]:
    if score is None:
        return []
    print(
        f"{score.clip:24s} {score.seconds:3d} s {score.windows:5d}  within 1 {score.within_1:5.3f}  2 {score.within_2:5.3f}"
        f"  certain {score.certain:5.3f}  certain and wrong {score.certain_and_wrong:5.3f}",
        flush=True,
    )
    return [score]


def fit(people: list[WatchedSpeech]) -> OffsetMaps:
    """Canonical correlation between sound and mouth of people in sync, with a ridge on either side."""
    mouth = np.concatenate([mouth_features(person.mouth) for person in people])
    sound = np.concatenate([sound_features(person.samples)[: len(person.mouth)] for person in people])
    num_frames = len(mouth)
    sound_root = np.linalg.cholesky(sound.T @ sound / num_frames + RIDGE * np.eye(sound.shape[1]))
    mouth_root = np.linalg.cholesky(mouth.T @ mouth / num_frames + RIDGE * np.eye(mouth.shape[1]))
    whitened = np.linalg.solve(sound_root, sound.T @ mouth / num_frames) @ np.linalg.inv(mouth_root).T
    left, _, right = np.linalg.svd(whitened, full_matrices=False)
    return OffsetMaps(np.linalg.solve(sound_root.T, left[:, :NUM_PAIRS]), np.linalg.solve(mouth_root.T, right[:NUM_PAIRS].T))


def _score(name: str, clip: WatchedSpeech, seconds: int, maps: OffsetMaps, late_s: float) -> Score | None:
    length, results = seconds * FPS, []
    for start in range(0, len(clip.mouth) - length + 1, max(length // 3, 1)):
        for shift in SHIFTS:
            first = start - shift  # sound from before its picture is late sound
            if first < 0 or (first + length) * SAMPLES_PER_FRAME > len(clip.samples):
                continue
            window = WatchedSpeech(
                clip.mouth[start : start + length],
                clip.samples[first * SAMPLES_PER_FRAME : (first + length) * SAMPLES_PER_FRAME],
            )
            if abs(shift / FPS + late_s) <= 0.5:
                results.append(_result(window, maps, shift / FPS + late_s))
    return _line(name, seconds, results)


def _score_unrelated(clips: list[WatchedSpeech], seconds: int, maps: OffsetMaps) -> Score | None:
    length, results = seconds * FPS, []
    for seen, heard in itertools.permutations(clips, 2):
        for start in range(0, min(len(seen.mouth), len(heard.mouth)) - length + 1, length):
            window = WatchedSpeech(
                seen.mouth[start : start + length],
                heard.samples[start * SAMPLES_PER_FRAME : (start + length) * SAMPLES_PER_FRAME],
            )
            results.append(_result(window, maps, float("inf")))
    return _line("unrelated", seconds, results)


def _result(window: WatchedSpeech, maps: OffsetMaps, truth_s: float) -> tuple[float, float]:
    found = measure_offset([window], maps)
    return (float("inf"), 0.0) if found is None else (abs(found.seconds - truth_s) * FPS, found.certainty)


def _line(name: str, seconds: int, results: list[tuple[float, float]]) -> Score | None:
    if not results:
        return None
    errors, certainty = np.array(results).T
    certain = certainty >= MouthParams().min_certainty_shift
    return Score(
        name,
        seconds,
        len(results),
        *(
            round(float(value), 4)
            for value in ((errors <= 1.5).mean(), (errors <= 2.5).mean(), certain.mean(), (certain & (errors > 2.5)).mean())
        ),
    )


def _watched(path: Path, work: Path) -> WatchedSpeech:
    work.mkdir(parents=True, exist_ok=True)
    kept = work / f"{path.stem}.npz"
    if kept.exists():
        with np.load(kept) as stored:
            return WatchedSpeech(stored["mouth"], stored["samples"])
    print(f"watching {path.name}", flush=True)
    found = probe(path)
    samples = []
    for index, frame in enumerate(iter_frames(path, fps=_SAMPLES_PER_SECOND)):
        faces = sorted(detect_faces(frame), key=lambda face: -face.h)[:1]
        samples.append(FaceSample(index / _SAMPLES_PER_SECOND, tuple(FaceBox(*face[:4]) for face in faces)))
    footage = Footage(path, found, tuple(samples))
    stretch = Stretch(0.0, min(int(found.video_duration_s * FPS), _LONGEST_FRAMES))
    view = mouth_scan.view_of(footage, stretch)
    if view is None:
        sys.exit(f"{path}: shows no face")
    mouth = []
    with FaceMesh() as mesh:
        for frame in stretch_frames(path, found, stretch, view):
            face = mesh.detect(frame)
            mouth.append(np.full(9, np.nan) if face is None else mouth_distances(face.landmarks))
    watched = WatchedSpeech(np.array(mouth), stretch_sound(path, found, Stretch(0.0, len(mouth))))
    with atomic_path(kept) as temporary, temporary.open("wb") as file:
        np.savez(file, mouth=watched.mouth, samples=watched.samples)
    return watched


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, required=True, help="folder of GRID clips")
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--late", nargs="*", default=[], metavar="FILE=SECONDS", help="clips whose sound is known to be late")
    parser.add_argument("--write", action="store_true", help="replace the maps of the package")
    parser.add_argument("--work", type=Path, default=Path(".gensync") / "sound_offset")
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
