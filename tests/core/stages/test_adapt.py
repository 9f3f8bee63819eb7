"""Adaptation on a made-up project: nobody but the newcomer changes, in files, in memory, or in a rendered frame."""

import numpy as np
import pytest
import torch
from made_up_project import params, project
from made_up_training import SIZE_PX
from PIL import Image

from gensync_core.artefacts import sha256_of
from gensync_core.gaussians.rasterize import Backend
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.paths import Project
from gensync_core.rendering.synthesis import load_avatar
from gensync_core.stages import adapt as stage
from gensync_core.training import adapt as training

GROUPS = {"anna": "cohort", "bob": "cohort", "carla": "adapted", "dora": "adapted"}


@pytest.fixture
def made(tmp_path) -> Project:
    return project(tmp_path, GROUPS)


def digests(made: Project) -> dict[str, str]:
    files = [path for path in made.root.rglob("*") if path.is_file() and ".gensync" not in path.parts]
    return {path.relative_to(made.root).as_posix(): sha256_of(path) for path in files}


def picture(made: Project, name: str) -> bytes:
    avatar = load_avatar(made.shared, made.speaker(made.registry().get(name)).model, Backend("cpu", "cpu"))
    features = np.sin(np.arange(50, dtype=np.float32)).reshape(5, 10)
    return b"".join(frame.image.tobytes() for frame in avatar.stream([features]))


def test_adapting_someone_changes_nobody_else(made):
    before, pictures = digests(made), {name: picture(made, name) for name in GROUPS}
    stage.run(made, "carla", params())
    after = digests(made)
    new = {"models/main/adapted/carla.safetensors", "models/main/adapted/carla.csv"}
    assert {name for name in after if after[name] != before.get(name)} == new
    assert set(before) <= set(after)
    assert {name for name in GROUPS if picture(made, name) != pictures[name]} == {"carla"}


def test_the_shared_network_stays_as_it_is_in_memory_and_the_newcomer_moves(made, monkeypatch):
    networks = []
    adapt_speaker = training.adapt_speaker

    def watched(data, state, network, *rest):
        networks.append((network, {name: tensor.clone() for name, tensor in network.state_dict().items()}))
        return adapt_speaker(data, state, network, *rest)

    monkeypatch.setattr(stage, "adapt_speaker", watched)
    stage.run(made, "carla", params())
    (network, before), paths = networks[0], made.speaker(made.registry().get("carla"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    coarse, fitted = SpeakerState.load(paths.coarse), SpeakerState.load(paths.model)
    for part in ("head", "torso"):
        for (name, was), (_, now) in zip(getattr(coarse, part).named(), getattr(fitted, part).named(), strict=True):
            assert not torch.equal(was, now), f"{part} {name}"
    assert not torch.equal(fitted.identity, network.mean_identity)
    assert not torch.equal(coarse.aligner.scale, fitted.aligner.scale)
    assert not torch.equal(coarse.aligner.offset, fitted.aligner.offset)


def test_adapting_leaves_a_picture_of_truth_under_rendering(made):
    stage.run(made, "carla", params())
    shown = np.asarray(Image.open(made.root / ".gensync" / "scratch" / "previews" / "adapt-carla.png"))
    assert shown.shape == (2 * SIZE_PX, SIZE_PX, 3)
