"""The stage on a made clip: a grey square whose brightness is the mouth opening, and an avatar that paints what it hears."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image

from gensync_core.artefacts import write_json, write_tensors
from gensync_core.audio.features import SpeechFeatures
from gensync_core.errors import ArtefactBroken, AssetMissing
from gensync_core.evaluation import trial
from gensync_core.evaluation.figures import METRICS
from gensync_core.face.landmarks import Face
from gensync_core.face.regions import LEFT_EYE_OUTER, LOWER_INNER_LIP, RIGHT_EYE_OUTER, UPPER_INNER_LIP, Region
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.lpips import Lpips
from gensync_core.media.video import LabelWriter, VideoWriter
from gensync_core.params import load_params
from gensync_core.paths import Project
from gensync_core.rendering.synthesis import Avatar, RenderedFrame
from gensync_core.speakers import Registry, Speaker
from gensync_core.stages import evaluate

ROOT = Path(__file__).resolve().parents[3]
SIZE, NUM_FRAMES, TEST_SHARE = 64, 120, 0.45
HEAD = slice(8, 56)
PATCH = slice(24, 40)
FACE = np.random.default_rng(3).uniform(20, 44, (478, 3)).astype(np.float32)
FACE[RIGHT_EYE_OUTER], FACE[LEFT_EYE_OUTER] = (20, 24, 0), (44, 24, 0)


def paint(opening):
    image = np.full((SIZE, SIZE, 3), 60, dtype=np.uint8)
    image[HEAD, HEAD] = 120
    image[PATCH, PATCH] = round(40 + 400 * float(np.clip(opening, 0, 0.5)))
    return image


class FakeMesh:
    """Reads the brightness of the patch as the opening; frames darker than that have no face."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def detect(self, frame):
        opening = (float(frame[PATCH, PATCH].mean()) - 40) / 400
        landmarks = FACE.copy()
        landmarks[UPPER_INNER_LIP], landmarks[LOWER_INNER_LIP] = (32, 32, 0), (32, 32 + 24 * opening, 0)
        return None if opening < -0.05 else Face(landmarks, 1.0)


class FakeAvatar(Avatar):
    """Opens its mouth as the first feature says, `late` frames too late."""

    resolution = SIZE

    def __init__(self, late=0):
        self.late, self.field = late, SimpleNamespace(mode="full")
        gaussians = SimpleNamespace(means=np.zeros((5, 3)))
        self.state = SimpleNamespace(head=gaussians, torso=gaussians, meta={"images_seen": 7})

    def render(self, features, motion, frames):
        assert {len(part) for part in motion} == {len(frames)}
        alpha = np.zeros((SIZE, SIZE), dtype=np.float32)
        alpha[HEAD, HEAD] = 1
        for index in frames:
            image = paint(features[max(index - self.late, 0), 0])
            yield RenderedFrame(image, (image / 255).astype(np.float32) * alpha[..., None], alpha)


@pytest.fixture
def openings():
    noise = np.random.default_rng(11).standard_normal(NUM_FRAMES + 8)
    return np.clip(np.convolve(noise, np.hanning(9), mode="valid") * 0.03 + 0.2, 0, 0.5).astype(np.float32)


@pytest.fixture
def project(tmp_path, openings, monkeypatch):
    """A trained project of one speaker; no model is behind it."""
    project = Project(tmp_path)
    speaker = Speaker(id="alice", raw="data/raw/alice.mp4", sha256="0", group="cohort")
    Registry({"alice": speaker}).save(project.speakers_file)
    paths = project.speaker(speaker)
    for path in (paths.clip, paths.model):
        path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(paths.wav, np.sin(np.arange(NUM_FRAMES * 640) * 0.05) * 0.1, 16000, subtype="PCM_16")
    labels = np.zeros((SIZE, SIZE), dtype=np.uint8)
    labels[HEAD, HEAD] = Region.FACE
    with VideoWriter(paths.clip, SIZE, SIZE, 25) as clip, LabelWriter(paths.masks, SIZE, SIZE, 25) as masks:
        for opening in openings:
            clip.write(paint(opening))
            masks.write(labels)
    Image.fromarray(paint(0)).save(paths.background)
    write_json(paths.camera, {"fx": 90.0, "fy": 90.0, "cx": 32.0, "cy": 32.0, "width": SIZE, "height": SIZE})
    zeros = np.zeros((NUM_FRAMES, 478, 3), dtype=np.float32)
    poses = np.tile(np.eye(4, dtype=np.float32), (NUM_FRAMES, 1, 1))
    arrays = {"landmarks_px": zeros + FACE, "head_to_camera": poses, "body_to_camera": poses, "upper_face": zeros[:, :6, 0]}
    write_tensors(
        paths.track_arrays, arrays | {"canonical_landmarks": zeros[0], "canonical_motion": zeros}, {"reference_frame": 0}
    )
    pd.DataFrame({"frame": np.arange(NUM_FRAMES), "aperture": openings}).to_parquet(paths.track_table)
    write_tensors(paths.audio, {"features": np.stack([openings] * 4, axis=1), "silence": np.zeros((5, 4), np.float32)})
    for path in (paths.model, project.shared):
        path.write_bytes(b"weights")
    for path in (paths.coarse_log, paths.training_log):
        path.write_text("step,name,value\n20,loss,0.5\n40,loss,0.25\n")
    monkeypatch.setattr("gensync_core.face.landmarks.FaceMesh", FakeMesh)
    monkeypatch.setattr(
        trial, "encode", lambda samples, _: SpeechFeatures(np.full((len(samples) // 640, 4), 0.1, np.float32), "", "", 0)
    )
    monkeypatch.setattr(trial, "attention_sheet", lambda *_: None)
    # The lips follow the first feature, as the pictures do.
    monkeypatch.setattr(trial, "lip_openings", lambda _, __, features, frames, *rest: features.numpy()[frames, 0])
    return project


@pytest.fixture
def params():
    params = load_params(ROOT / "params.yaml")
    settings = replace(
        params.evaluate, max_frames=None, controls=True, control_shift_s=1.0, max_offset_frames=6, sheet_frames=4
    )
    return replace(params, split=replace(params.split, test_share=TEST_SHARE), evaluate=settings)


def run(project, params, monkeypatch, avatar):
    monkeypatch.setattr(evaluate, "load_avatar", lambda *_: avatar)
    evaluate.run(project, "alice", params)
    folder = project.root / "reports" / "alice"
    return folder, json.loads((folder / "metrics.json").read_text())


def test_an_avatar_that_paints_the_truth_scores_as_the_truth(project, params, monkeypatch):
    folder, metrics = run(project, params, monkeypatch, FakeAvatar())
    assert set(METRICS) <= set(metrics)
    assert metrics["frames"] == 54
    assert metrics["first_frame"] == 66
    assert metrics["aperture_r"] > 0.98
    assert metrics["aperture_r_gap"] > 0.5
    assert metrics["aperture_std_silent_over_speech"] < 0.01
    assert metrics["offset_frames"] == 0
    assert metrics["psnr_full"] > 35
    assert metrics["gaussians"] == 10
    assert metrics["images_seen"] == 7
    with (folder / "aperture.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [rows[0]["frame"], rows[-1]["frame"]] == ["66", "119"]
    assert all(row["shuffled"] and row["silent"] for row in rows)
    assert "data:video/mp4;base64" in (folder / "report.html").read_text()


def test_a_late_mouth_is_reported_as_late(project, params, monkeypatch):
    _, metrics = run(project, params, monkeypatch, FakeAvatar(late=3))
    assert metrics["offset_frames"] == 3
    assert metrics["offset_r"] > metrics["aperture_r"]


def test_two_runs_give_the_same_bytes_and_leave_nothing_behind(project, params, monkeypatch):
    contents = []
    for _ in range(2):
        folder, _ = run(project, params, monkeypatch, FakeAvatar())
        contents.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert contents[0] == contents[1]
    assert list(contents[0]) == ["aperture.csv", "losses.csv", "metrics.json", "report.html"]


def test_fewer_frames_and_no_controls_on_request(project, params, monkeypatch):
    fast = replace(params, evaluate=replace(params.evaluate, max_frames=12, controls=False))
    _, metrics = run(project, fast, monkeypatch, FakeAvatar())
    assert metrics["frames"] == 12
    assert metrics["aperture_r_gap"] is None


def test_perceptual_figures_on_request_and_never_without_their_weights(project, params, monkeypatch):
    avatar, asked = FakeAvatar(), replace(params, evaluate=replace(params.evaluate, max_frames=4, controls=False, lpips=True))
    avatar.backend = Backend("cpu", "cpu")

    def missing(_):
        raise AssetMissing("lpips-alex was not found")

    monkeypatch.setattr(trial, "load_lpips", missing)
    with pytest.raises(AssetMissing, match="lpips-alex"):
        run(project, asked, monkeypatch, avatar)
    assert not (project.root / "reports").exists()

    class Constant(Lpips):
        def __init__(self):
            self.device = torch.device("cpu")

        def __call__(self, images, targets):
            return images.new_full((1,), 0.25)

    monkeypatch.setattr(trial, "load_lpips", lambda _: Constant())
    _, metrics = run(project, asked, monkeypatch, avatar)
    assert metrics["lpips_full"] == metrics["lpips_mouth"] == 0.25
    _, metrics = run(project, replace(asked, evaluate=replace(asked.evaluate, lpips=False)), monkeypatch, avatar)
    assert metrics["lpips_full"] is None
    assert metrics["lpips_mouth"] is None


def test_a_face_that_is_not_found_is_counted_not_hidden(project, params, monkeypatch):
    class Faceless(FakeAvatar):
        def render(self, features, motion, frames):
            for frame in super().render(features, motion, frames):
                yield frame._replace(image=np.zeros_like(frame.image))

    _, metrics = run(project, params, monkeypatch, Faceless())
    assert metrics["faces_found"] == 0
    assert metrics["aperture_r"] is None
    assert metrics["lmd_px512"] is None
    assert metrics["psnr_full"] < 15


def test_a_model_of_another_size_is_refused(project, params, monkeypatch):
    avatar = FakeAvatar()
    monkeypatch.setattr(FakeAvatar, "resolution", 128)
    with pytest.raises(ArtefactBroken, match="128 px, but the clip has 64 px"):
        run(project, params, monkeypatch, avatar)
    assert not (project.root / "reports").exists()
