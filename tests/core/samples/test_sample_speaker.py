import json
from pathlib import Path

import numpy as np
import pytest

from gensync_core.artefacts import read_tensors, sha256_of
from gensync_core.errors import UsageError
from gensync_core.face import expression, regions
from gensync_core.face.canonical import canonical_face
from gensync_core.face.landmarks import FaceMesh
from gensync_core.geometry.camera import project
from gensync_core.media.video import iter_frames, probe
from gensync_core.samples import SampleFiles, make_sample
from gensync_core.samples.head_model import HeadModel, build_head, fit_similarity, pose_head, rotation_of
from gensync_core.samples.portraits import PORTRAITS, Layers, take_apart
from gensync_core.samples.sample_speaker import draw_frames, find_landmarks
from gensync_core.samples.triangles import OUTSIDE, texture_map

SIZE = 192


@pytest.fixture(scope="module", params=["astronaut", "hopper"])
def head(request: pytest.FixtureRequest) -> tuple[HeadModel, Layers]:
    portrait = PORTRAITS[request.param]
    landmarks = find_landmarks(portrait, SIZE)
    layers = take_apart(portrait, SIZE, landmarks)
    return build_head(landmarks, layers.follow), layers


@pytest.fixture(scope="module", params=["astronaut", "hopper"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SampleFiles:
    return make_sample(request.param, tmp_path_factory.mktemp("sample") / "clip.mp4", seconds=4.0, size=SIZE)


def test_the_face_mesh_follows_the_sample(sample: SampleFiles) -> None:
    truth, _ = read_tensors(sample.truth)
    with FaceMesh() as mesh:
        faces = [mesh.detect(frame) for frame in iter_frames(sample.video)]
    assert all(face is not None for face in faces)
    found = np.stack([face.landmarks for face in faces if face is not None])
    span = expression.inter_ocular(truth["landmarks_px"]).mean()
    error = np.linalg.norm(found[..., :2] - truth["landmarks_px"][..., :2], axis=-1)
    assert np.median(error) < 0.03 * span
    assert np.corrcoef(expression.mouth_aperture(found), truth["aperture"])[0, 1] > 0.9
    assert np.corrcoef(expression.mouth_width(found), truth["mouth_width"])[0, 1] > 0.7
    assert np.corrcoef(expression.blink(found, expression.RestingFace.of(found)), truth["blink"])[0, 1] > 0.6


def test_video_and_truth_belong_together(sample: SampleFiles) -> None:
    truth, meta = read_tensors(sample.truth)
    about = json.loads(sample.truth_json.read_text())
    facts = probe(sample.video)
    assert facts.has_audio
    assert (facts.width, facts.height, facts.num_frames) == (SIZE, SIZE, 100)
    assert {len(values) for values in truth.values()} == {100}
    assert about["num_frames"] == 100
    assert "public domain" in about["credit"]
    assert meta["sample"] == about["sample"]
    assert truth["aperture"].min() < 0.01
    assert truth["aperture"].max() > 0.2


def test_the_pose_projects_the_canonical_face_onto_the_landmarks(sample: SampleFiles) -> None:
    truth, _ = read_tensors(sample.truth)
    camera = json.loads(sample.truth_json.read_text())["camera"]
    K = np.array([[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]])
    vertices, _ = canonical_face()
    span = expression.inter_ocular(truth["landmarks_px"]).mean()
    for frame in (0, 50, 99):
        pose = truth["head_to_camera"][frame].astype(np.float64)
        seen = project(vertices @ pose[:3, :3].T + pose[:3, 3], K)
        error = np.linalg.norm(seen - truth["landmarks_px"][frame, : regions.NUM_MESH_LANDMARKS, :2], axis=-1)
        assert np.median(error) < 0.1 * span


def test_the_same_arguments_give_the_same_bytes_and_the_surroundings_stand_still(tmp_path: Path) -> None:
    first = make_sample("hopper", tmp_path / "first.mp4", seconds=0.6, size=64, seed=4)
    second = make_sample("hopper", tmp_path / "second.mp4", seconds=0.6, size=64, seed=4)
    other = make_sample("hopper", tmp_path / "other.mp4", seconds=0.6, size=64, seed=5)
    assert sha256_of(first.video) == sha256_of(second.video) != sha256_of(other.video)
    assert first.truth.read_bytes() == second.truth.read_bytes()
    frames = np.stack(list(iter_frames(first.video))).astype(int)
    assert len(frames) == 15
    assert np.abs(frames[:, 56:, :12] - frames[0, 56:, :12]).max() < 24


def test_unknown_portraits_and_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="astronaut"):
        make_sample("nobody", tmp_path / "x.mp4")
    with pytest.raises(ValueError, match="even"):
        make_sample("hopper", tmp_path / "x.mp4", size=101)
    assert not list(tmp_path.iterdir())


def test_the_aperture_is_what_was_asked_for(head: tuple[HeadModel, Layers]) -> None:
    model, _ = head
    for aperture in (0.0, 0.1, 0.3):
        points = model.points_px + model.fields.displacement(aperture, 0.0, 0.0)
        gap = np.linalg.norm(points[regions.UPPER_INNER_LIP] - points[regions.LOWER_INNER_LIP]) / model.span_px
        assert gap == pytest.approx(aperture, abs=0.012)


def test_signals_move_their_own_part_of_the_face_only(head: tuple[HeadModel, Layers]) -> None:
    model, _ = head
    eyes, mouth = [*regions.LEFT_EYE, *regions.RIGHT_EYE], list(regions.LIPS)
    small = 0.01 * model.span_px
    assert np.abs(model.fields.opening[eyes]).max() < small
    assert np.abs(model.fields.spreading[eyes]).max() < small
    assert np.abs(model.fields.left_blink[[*mouth, *regions.RIGHT_EYE, *regions.LEFT_IRIS]]).max() < small
    assert np.abs(model.fields.left_blink[list(regions.LEFT_EYE)]).max() > 5 * small
    corners = [regions.RIGHT_MOUTH_CORNER, regions.LEFT_MOUTH_CORNER]
    assert np.diff(model.fields.spreading[corners, 0]) > 0.1 * model.span_px


def test_no_frame_is_torn_but_for_the_open_mouth(head: tuple[HeadModel, Layers]) -> None:
    model, layers = head
    turns = [(0, 0, 0), (6, -4, 2), (-6, 4, -2)]
    posed = [
        pose_head(model, model.fields.displacement(0.3, 0.0, 1.0), np.array(turn, dtype=float), np.zeros(3)) for turn in turns
    ]
    for one in posed:
        places = texture_map(
            model.triangles,
            (2 * model.points_px).astype(np.float32),
            (2 * one.points_px).astype(np.float32),
            2 * SIZE,
            2 * SIZE,
        )
        hole = np.argwhere(places[..., 0] == OUTSIDE)[:, ::-1] / 2
        lips = one.points_px[list(regions.LIPS_INNER)]
        assert (hole > lips.min(axis=0) - 1).all()
        assert (hole < lips.max(axis=0) + 1).all()
    frames = list(draw_frames(model, layers, posed, np.full(3, 0.3, dtype=np.float32)))
    assert {frame.shape for frame in frames} == {(SIZE, SIZE, 3)}
    inside = layers.follow < 0.01
    assert np.abs(frames[1].astype(int) - frames[2])[inside & ~moved(model, posed)].max() < 40


def moved(model: HeadModel, posed: list) -> np.ndarray:
    """Pixels that any of the heads may cover."""
    xy = np.concatenate([one.points_px[model.follow > 0] for one in posed])
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    left, top = np.maximum(xy.min(axis=0).astype(int), 0)
    right, bottom = xy.max(axis=0).astype(int) + 1
    mask[top:bottom, left:right] = True
    return mask


def test_turns_are_about_the_named_axes() -> None:
    nose = np.array([0.0, 0.0, -1.0])
    assert (rotation_of(np.array([10.0, 0, 0])) @ nose)[0] < -0.1
    assert (rotation_of(np.array([0, 10.0, 0])) @ nose)[1] > 0.1
    np.testing.assert_allclose(rotation_of(np.array([0, 0, 90.0])) @ np.array([1.0, 0, 0]), [0, 1, 0], atol=1e-9)


def test_similarity_is_recovered() -> None:
    generator = np.random.default_rng(0)
    source = generator.standard_normal((20, 3))
    rotation, shift = rotation_of(np.array([20.0, -30.0, 40.0])), np.array([1.0, 2.0, 3.0])
    scale, found, translation = fit_similarity(source, 2.5 * source @ rotation.T + shift)
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(found, rotation, atol=1e-9)
    np.testing.assert_allclose(translation, shift, atol=1e-9)


def test_triangles_carry_their_texture() -> None:
    texture = np.array([[0, 0], [8, 0], [0, 8]], dtype=np.float32)
    places = texture_map(np.array([[0, 1, 2]], dtype=np.int32), texture, texture + np.float32(2.0), 16, 16)
    assert places[3, 4].tolist() == [2.0, 1.0]
    assert places[0, 0, 0] == OUTSIDE
    assert places[9, 9, 0] == OUTSIDE
