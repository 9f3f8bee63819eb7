"""Does every avatar of a trained project follow the voices of the others?

    python benchmarks/cross_driving.py [--project FOLDER] [--pictures] [--json FILE]

Every avatar is driven by the held-out sound of every clip, with its head held still. A row says how its mouth follows the
mouth opening that was tracked in the footage of that voice: Pearson r, r with shuffled sound, and the difference; of the lips
in the canonical frame and, with `--pictures`, of rendered frames, too. Where face and voice are one person it is the sound
that training held out. Mark: 0.5 for other people's voices.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from laboratory import table, write_results

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.evaluation.cross_driving import Following, following_in_pictures, following_of_lips
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.params import load_params
from gensync_core.paths import Project
from gensync_core.progress import progress
from gensync_core.rendering.synthesis import load_avatar

MARK = 0.5


def measure(project: Project, pictures: bool) -> list[dict[str, Any]]:
    params, registry = load_params(project.params_file), project.registry()
    backend, shift = choose_backend(params.render), round(params.evaluate.control_shift_s * 25)
    paths = {name: project.speaker(speaker) for name, speaker in registry.speakers.items()}
    clips = {name: ClipDataset.open(path, project.scratch / "frames", params.split) for name, path in paths.items()}
    rows = []
    for face, path in paths.items():
        avatar = load_avatar(project.shared, path.model, backend)
        for voice, clip in clips.items():
            frames = np.arange(clip.num_train, clip.num_frames)
            row = {"face": face, "voice": voice, "frames": len(frames), "whose": "own" if face == voice else "other"}
            row |= _named("lips", following_of_lips(avatar, clips[face].canonical_landmarks, clip, frames, shift))
            if pictures:
                with progress(f"{face} speaks as {voice}", 2 * len(frames)) as bar:
                    row |= _named("pictures", following_in_pictures(avatar, clip, frames, shift, bar))
            rows.append(row)
    return rows


def _named(where: str, found: Following) -> dict[str, float]:
    return {f"{where}_r": found.r, f"{where}_shuffled": found.r_shuffled, f"{where}_gap": found.gap}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(), help="a trained project")
    parser.add_argument("--pictures", action="store_true", help="measure rendered frames, too")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    parser.add_argument("--results", type=Path, help="folder of the CSV; without: into the project")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(Project(arguments.project.resolve()), arguments.pictures)
    columns = [("face", "face", ""), ("voice", "voice", ""), ("frames", "frames", "d")]
    for where in ["lips", "pictures"] if arguments.pictures else ["lips"]:
        columns += [(f"{where}_{part}", f"{where} {part}", ".2f") for part in ("r", "shuffled", "gap")]
    print(table(rows, columns))
    others = [row["lips_gap"] for row in rows if row["whose"] == "other"]
    if others:
        print(f"other people's voices, lips: {np.mean(others):.2f} in the mean, {min(others):.2f} at least; mark {MARK}")
    folder = arguments.results or arguments.project / ".gensync" / "results"
    print(write_results("cross_driving", rows, arguments.json, folder))


if __name__ == "__main__":
    main()
