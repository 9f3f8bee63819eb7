"""Fine-tuning on a made-up project: the model in use keeps its bytes, everybody is scored before and after."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_project import params, project

from gensync_core.artefacts import read_json, sha256_of
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.errors import UsageError
from gensync_core.evaluation import trial
from gensync_core.gaussians.rasterize import Backend
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.paths import Project
from gensync_core.rendering.synthesis import load_avatar
from gensync_core.stages import finetune as stage
from gensync_core.training import fit as fit_module
from gensync_core.training.batch_loss import BatchLoss

GROUPS = {"anna": "cohort", "bob": "cohort", "carla": "adapted"}


class Faceless:
    """Finds no face: made-up frames are noise."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def detect(self, frame):
        return None


@pytest.fixture(autouse=True, scope="module")
def faceless():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gensync_core.face.landmarks.FaceMesh", Faceless)
        yield


@pytest.fixture(scope="module")
def before_and_finished(tmp_path_factory) -> tuple[dict[str, str], Project]:
    """A project's digests as it was, and the project after fine-tuning."""
    made = project(tmp_path_factory.mktemp("finished"), GROUPS)
    before = digests(made.root)
    stage.run(made, params())
    return before, made


def digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def psnr(made: Project, shared: Path, name: str, model: Path) -> float:
    """Head over truth on the held-out frames, worked out anew from the files."""
    avatar = load_avatar(shared, model, Backend("cpu", "cpu"))
    paths = made.speaker(made.registry().get(name))
    data = ClipDataset.open(paths, made.scratch / "frames", params().split)
    scores = trial.ImageScores()
    frames = np.arange(data.num_train, data.num_frames)
    rendered = avatar.render(data.features.numpy(), data.motion.take(frames), frames)
    for index, frame in zip(frames, rendered, strict=True):
        landmarks = np.full((478, 3), np.nan, dtype=np.float32)
        scores.add(frame.image, frame.head_image, frame.head_alpha, data.frames[int(index)], data.masks[int(index)], landmarks)
    return scores.means()["psnr_head_over_truth"]


def test_a_model_of_its_own_is_made_and_the_one_in_use_keeps_its_bytes(before_and_finished):
    before, made = before_and_finished
    after = digests(made.root)
    assert {name: after[name] for name in before} == before
    new = {name for name in set(after) - set(before) if not name.startswith(".gensync")}
    states = {f"{group}/{name}" for name, group in GROUPS.items()}
    files = {"shared.safetensors", "shared.json", "scores.json"}
    files |= {f"{state}.{kind}" for state in states for kind in ("safetensors", "csv")}
    assert new == {f"models/finetuned/{name}" for name in files}

    old, tuned = (GenSync.load(path)[0].state_dict() for path in (made.shared, made.finetuned_shared))
    assert not torch.equal(old["head_field.triplane.table"], tuned["head_field.triplane.table"])
    codes = []
    for name in GROUPS:
        speaker = made.registry().get(name)
        was, now = (SpeakerState.load(paths.model) for paths in (made.speaker(speaker), made.finetuned(speaker)))
        assert not torch.equal(was.head.means, now.head.means)
        assert not torch.equal(was.identity, now.identity)
        codes.append(now.identity)
    assert torch.allclose(tuned["mean_identity"], torch.stack(codes).mean(0))
    assert read_json(made.finetuned_shared.with_suffix(".json"))["finetuned_from"] == sha256_of(made.shared)


def test_scores_are_those_of_the_two_models(before_and_finished):
    _, made = before_and_finished
    scores = read_json(made.finetuned_scores)["speakers"]
    assert {name: row["group"] for name, row in scores.items()} == GROUPS
    for name, row in scores.items():
        speaker = made.registry().get(name)
        models = {"before": (made.shared, made.speaker(speaker)), "after": (made.finetuned_shared, made.finetuned(speaker))}
        for when, (shared, paths) in models.items():
            assert row[when]["psnr_head_over_truth"] == pytest.approx(psnr(made, shared, name, paths.model), abs=0.02)
            assert {"lmd_px512", "aperture_r_gap"} <= set(row[when])
        assert row["before"] != row["after"]


def test_a_killed_fine_tuning_goes_on_to_the_same_bytes(before_and_finished, tmp_path, monkeypatch):
    straight, made = before_and_finished[1], project(tmp_path, GROUPS)
    monkeypatch.setattr(fit_module, "_CHECKPOINT_INTERVAL_S", -1.0)
    forward = BatchLoss.forward

    def interrupted(self, step, batch, torso):
        if step == 3:
            raise InterruptedError
        return forward(self, step, batch, torso)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(BatchLoss, "forward", interrupted)
        stage.run(made, params())
    assert not made.finetuned_folder.exists()
    stage.run(made, params())
    assert read_json(made.root / ".gensync" / "runs" / "finetune.json")["resumed_at_step"] == 3
    assert digests(made.finetuned_folder) == digests(straight.finetuned_folder)
    assert not list(made.scratch.glob("finetune-*"))


def test_nobody_adapted_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="nobody is adapted"):
        stage.run(project(tmp_path, {"anna": "cohort"}), params())


def test_a_share_beyond_all_is_an_error():
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="replay_share must lie in"):
            replace(params().finetune, replay_share=share)
