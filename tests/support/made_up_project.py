"""A project on disk whose speakers are those of `made_up_training`: preprocessed, with a shared network and states.

Clips are read as those of a real project, but nothing is decoded: the decoded frames lie where they are looked for.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from made_up_training import FIT, FRAMES, LOSSES, MODEL, network_of, trainee_of
from PIL import Image

from gensync_core.artefacts import sha256_of, write_json, write_tensors
from gensync_core.params import Params, load_params
from gensync_core.paths import Project
from gensync_core.speakers import Registry, Speaker
from gensync_core.training.objective import Trainee
from gensync_core.training.schedules import FinetuneParams

ROOT = Path(__file__).resolve().parents[2]


def params(finetune_share: float = 0.5) -> Params:
    stored = load_params(ROOT / "params.yaml")
    return replace(
        stored,
        model=MODEL,
        loss=LOSSES,
        joint=FIT,
        adapt=replace(FIT, network_rate=0.0, grid_rate=0.0, aligner_rate=1e-3),
        finetune=FinetuneParams(**asdict(FIT), replay_share=finetune_share),
        evaluate=replace(stored.evaluate, controls=False, sheet_frames=1, lpips=False),
        split=replace(stored.split, test_share=2 / FRAMES),
    )


def project(root: Path, groups: dict[str, str]) -> Project:
    """Speakers by their group; all of them have coarse Gaussians, and states as if they were trained."""
    made = Project(root)
    speakers = {
        name: Speaker(id=name, raw=f"data/raw/{name}.mp4", sha256="0" * 64, group=group) for name, group in groups.items()
    }
    Registry(speakers).save(made.speakers_file)
    network_of().save(made.shared, {"cohort": [name for name, group in groups.items() if group == "cohort"]})
    for seed, speaker in enumerate(speakers.values()):
        paths, trainee = made.speaker(speaker), trainee_of(seed)
        write_clip(made, speaker, trainee)
        trainee.state.meta = {"speaker": speaker.id, "group": speaker.group}
        trainee.state.save(paths.coarse)
        trainee.state.save(paths.model)
    return made


def write_clip(made: Project, speaker: Speaker, trainee: Trainee) -> None:
    """What preprocessing would have written."""
    paths, data = made.speaker(speaker), trainee.data
    paths.folder.mkdir(parents=True, exist_ok=True)
    for clip, store, kind in ((paths.clip, data.frames, "rgb"), (paths.masks, data.masks, "gray")):
        clip.write_text(f"{kind} of {speaker.id}")
        decoded = made.scratch / "frames" / "frames" / f"{sha256_of(clip)[:20]}-{kind}.npy"
        decoded.parent.mkdir(parents=True, exist_ok=True)
        np.save(decoded, np.stack([store[index] for index in range(len(store))]))
    soundfile.write(paths.wav, np.zeros(len(data.frames) * 640), 16_000, subtype="PCM_16")
    Image.fromarray((data.plate.numpy() * 255).astype(np.uint8)).save(paths.background)
    names = ("head_to_camera", "body_to_camera", "upper_face", "landmarks_px", "canonical_landmarks", "canonical_motion")
    write_tensors(
        paths.track_arrays, {name: getattr(data, name).numpy() for name in names}, {"reference_frame": data.reference_frame}
    )
    pd.DataFrame({"aperture": data.aperture}).to_parquet(paths.track_table)
    write_tensors(paths.audio, {"features": data.features.numpy(), "silence": data.silence.numpy()})
    write_json(paths.camera, asdict(data.camera))
