"""The marks of tracking, on heads whose poses are known: 1 degree, 1 % of the distance, 0.05 degrees of jitter."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from gensync_core.face import regions
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.face.skin_points import FrontView, SkinFollower, SkinPoints, upper_landmarks
from gensync_core.face.tracker import Track, track
from gensync_core.geometry.camera import Intrinsics, pose_matrix, project, transform
from gensync_core.geometry.rotation import angle_between, matrix_to_rotvec, rotvec_to_matrix
from gensync_core.samples.head_model import build_head, pose_head
from gensync_core.samples.portraits import PORTRAITS, take_apart
from gensync_core.samples.sample_speaker import draw_frames, find_landmarks

SIZE, T = 256, 50
CAMERA = Intrinsics(2.5 * SIZE, 2.5 * SIZE, SIZE / 2, SIZE / 2, SIZE, SIZE)
K = CAMERA.matrix().astype(np.float64)
LAG = 0.3


class Sequence(NamedTuple):
    """Landmarks as a detector gives them: they lag behind turns, and tremble; then frames and truth."""

    landmarks_px: np.ndarray
    head_to_camera: np.ndarray
    camera: Intrinsics
    frames: list[np.ndarray]


def detected(true_px: np.ndarray, rest_px: np.ndarray, seed: int = 0) -> np.ndarray:
    """Landmarks [T, 478, 2] whose deformation against `rest_px` is too small, with an error that many have in common."""
    rng = np.random.default_rng(seed)
    count = len(true_px)
    affine = []
    for frame in true_px:  # place, roll and scale are seen well; what is left of a turn is seen too small
        system = np.column_stack([rest_px, np.ones(len(rest_px))])
        affine.append(system @ np.linalg.lstsq(system, frame, rcond=None)[0])
    too_small = true_px - LAG * (true_px - np.array(affine))
    waves = np.sin(rest_px / 30)[None] * rng.normal(size=(count, 1, 2))
    noise = 0.3 * waves + 0.3 * rng.normal(size=true_px.shape)
    return np.concatenate([too_small + noise, np.zeros((*true_px.shape[:2], 1))], axis=-1).astype(np.float32)


def draw(turns_deg: np.ndarray, blink: np.ndarray) -> Sequence:
    portrait = PORTRAITS["hopper"]
    found = find_landmarks(portrait, SIZE)
    layers = take_apart(portrait, SIZE, found)
    model = build_head(found, layers.follow)
    aperture = (0.1 + 0.1 * np.sin(np.arange(len(blink)) * 0.9)).astype(np.float32)
    posed = [
        pose_head(model, model.fields.displacement(float(a), 0.0, float(b)), turn, np.zeros(3))
        for a, b, turn in zip(aperture, blink, turns_deg, strict=True)
    ]
    true_px = np.stack([head.points_px[: len(found)] for head in posed])
    poses = np.stack([head.head_to_camera for head in posed])
    return Sequence(
        detected(true_px, model.points_px[: len(found)]), poses, model.camera, list(draw_frames(model, layers, posed, aperture))
    )


def blinks() -> np.ndarray:
    return np.resize([0.5, 1.0, 0.6, *[0.0] * 9], T)


@pytest.fixture(scope="module")
def turning() -> Sequence:
    time_s = np.arange(T) / 25
    turns = np.column_stack([8 * np.sin(3 * time_s), 5 * np.sin(2.3 * time_s + 1), 3 * np.cos(2 * time_s)])
    return draw(turns, blinks())


@pytest.fixture(scope="module")
def still() -> Sequence:
    return draw(np.zeros((T, 3)), blinks())


def track_by_skin(sequence: Sequence) -> tuple[Track, Track, SkinPoints]:
    """Poses from landmarks alone, poses with the skin, and the points."""
    seen = np.asarray(np.isfinite(sequence.landmarks_px).all(axis=(1, 2)), dtype=np.float32)
    first = track(sequence.landmarks_px, seen, SIZE, SIZE)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in sequence.frames]
    follower = SkinFollower(FrontView(first.canonical_landmarks, first.camera), grey[0], first.head_to_camera[0])
    skin = follower.gather([follower.follow(*pair) for pair in zip(grey, first.head_to_camera, strict=True)])
    assert skin is not None
    return first, track(sequence.landmarks_px, seen, SIZE, SIZE, skin=skin), skin


@pytest.fixture(scope="module")
def tracked_turning(turning: Sequence) -> tuple[Track, Track, SkinPoints]:
    return track_by_skin(turning)


def rotation_error_deg(found: np.ndarray, true: np.ndarray) -> float:
    """Mean, once a constant turn of the head's frame is taken out: what straight ahead is for a face is a convention."""
    turns, true_turns = found[:, :3, :3].astype(np.float64), true[:, :3, :3]
    left, _, right = np.linalg.svd((turns.swapaxes(1, 2) @ true_turns).mean(axis=0))
    return float(np.degrees(angle_between(turns @ (left @ right), true_turns)).mean())


def translation_error(found: np.ndarray, true: np.ndarray) -> float:
    """Mean over the distance; a constant scale is a convention, too: one camera does not tell a large head from a near one."""
    places, true_places = found[:, :3, 3].astype(np.float64), true[:, :3, 3]
    columns = np.concatenate([places[..., None], found[:, :3, :3]], axis=2)
    solved = np.linalg.lstsq(columns.reshape(-1, 4), true_places.ravel(), rcond=None)[0]
    return float((np.linalg.norm(columns @ solved - true_places, axis=1) / np.linalg.norm(true_places, axis=1)).mean())


def jitter_deg(poses: np.ndarray) -> float:
    turns = poses[:, :3, :3].astype(np.float64)
    steps = matrix_to_rotvec(turns[1:] @ turns[:-1].swapaxes(1, 2))
    return float(np.degrees(np.linalg.norm(np.diff(steps, axis=0), axis=1)).mean())


def test_a_turning_head_is_tracked_within_the_marks_though_its_landmarks_lag(turning, tracked_turning):
    first, result, _ = tracked_turning
    before, after = (rotation_error_deg(one.head_to_camera, turning.head_to_camera) for one in (first, result))
    assert after < 1.0 < before
    assert translation_error(result.head_to_camera, turning.head_to_camera) < 0.01


def test_a_head_that_stands_still_while_it_speaks_and_blinks_stays_still(still):
    first, result, _ = track_by_skin(still)
    assert jitter_deg(result.head_to_camera) < 0.05
    assert jitter_deg(result.head_to_camera) < 0.6 * jitter_deg(first.head_to_camera)


def test_points_of_the_skin_lie_where_the_skin_is(turning, tracked_turning):
    _, result, skin = tracked_turning
    points = transform(skin.canonical.astype(np.float64), turning.head_to_camera)
    moved = np.diff(project(points, turning.camera.matrix().astype(np.float64)), axis=0)
    seen = np.diff(skin.seen_px, axis=0)
    known = np.isfinite(seen).all(axis=-1)
    assert known.mean() > 0.5
    assert np.median(np.linalg.norm(seen - moved, axis=-1)[known]) < 0.25
    assert not result.interpolated.any()


def test_neither_eyes_nor_brows_are_points_of_the_skin(tracked_turning):
    first, _, skin = tracked_turning
    eyes = first.canonical_landmarks[[468, 473]]
    distance = np.linalg.norm(skin.canonical[:, None, :2] - eyes[None, :, :2], axis=-1)
    assert distance.min() > 0.1
    brows = first.canonical_landmarks[[*regions.LEFT_EYEBROW, *regions.RIGHT_EYEBROW]]
    assert np.linalg.norm(skin.canonical[:, None, :2] - brows[None, :, :2], axis=-1).min() > 0.05


def hidden(sequence: Sequence, frames: slice) -> Sequence:
    """A hand over one half of the face, and landmarks that are torn toward it."""
    covered = [frame.copy() for frame in sequence.frames]
    landmarks = sequence.landmarks_px.copy()
    middle = int(landmarks[:, 168, 0].mean())
    rng = np.random.default_rng(5)
    for place in range(*frames.indices(T)):
        hand = cv2.resize(
            rng.integers(120, 220, (8, 8, 3), dtype=np.uint8), (SIZE - middle, SIZE), interpolation=cv2.INTER_CUBIC
        )
        covered[place][:, middle:] = hand
        torn = landmarks[place, :, 0] > middle
        landmarks[place, torn, :2] += rng.normal(size=2) * 3
    return sequence._replace(frames=covered, landmarks_px=landmarks)


def test_a_hand_over_half_of_the_face_does_not_pull_the_pose(turning):
    behind = slice(20, 26)
    _, result, skin = track_by_skin(hidden(turning, behind))
    assert rotation_error_deg(result.head_to_camera, turning.head_to_camera) < 1.0
    share = np.isfinite(skin.seen_px).all(axis=-1).mean(axis=1)
    assert share[behind].mean() < 0.7 * np.delete(share, range(20, 26)).mean()


def test_lost_frames_are_marked_and_bridged_within_the_marks(turning):
    lost = [10, 23, 24, 37]
    landmarks = turning.landmarks_px.copy()
    landmarks[lost] = np.nan
    _, result, _ = track_by_skin(turning._replace(landmarks_px=landmarks))
    assert np.flatnonzero(result.interpolated).tolist() == lost
    assert (result.confidence[lost] == 0).all()
    errors = [rotation_error_deg(result.head_to_camera[part], turning.head_to_camera[part]) for part in (lost, slice(None))]
    assert max(errors) < 1.0


def smooth_poses() -> np.ndarray:
    time_s = np.arange(T) / 25
    rotvecs = np.radians(np.column_stack([5 * np.sin(2 * time_s), 12 * np.sin(1.3 * time_s), 3 * np.cos(1.7 * time_s)]))
    return pose_matrix(rotvec_to_matrix(rotvecs), np.column_stack([0.1 * np.sin(time_s), 0 * time_s, 8 + 0.2 * np.sin(time_s)]))


@pytest.mark.parametrize("moving", [True, False])
def test_projected_landmarks_with_the_noise_of_a_detector_are_tracked_within_the_marks(moving):
    poses = smooth_poses() if moving else np.repeat(smooth_poses()[:1], T, axis=0)
    pixels = project(transform(canonical_landmarks().astype(np.float64), poses), K)
    pixels += 0.4 * np.random.default_rng(3).normal(size=pixels.shape)
    landmarks = np.concatenate([pixels, np.zeros((*pixels.shape[:2], 1))], axis=-1).astype(np.float32)
    result = track(landmarks, np.ones(T, np.float32), SIZE, SIZE)
    errors = angle_between(result.head_to_camera[:, :3, :3].astype(np.float64), poses[:, :3, :3])
    assert np.degrees(errors).mean() < 1.0
    distance = np.linalg.norm(poses[:, :3, 3], axis=1)
    assert (np.linalg.norm(result.head_to_camera[:, :3, 3] - poses[:, :3, 3], axis=1) / distance).mean() < 0.01
    if not moving:
        assert jitter_deg(result.head_to_camera) < 0.05


def test_the_front_view_undoes_the_pose():
    view, poses = FrontView(canonical_landmarks(), CAMERA), smooth_poses()
    inner = upper_landmarks()
    inner[list(regions.FACE_OVAL)] = False  # there the face turns away from the view
    whole = canonical_landmarks()[inner][::10]
    for pose in poses[::20]:
        columns, rows = np.rint(view.from_mesh(whole)).astype(int).T
        there = view.places(pose.astype(np.float32))[rows, columns]
        np.testing.assert_allclose(there, project(transform(whole.astype(np.float64), pose), K), atol=2.0)


def test_a_plain_face_gives_no_points_and_no_error():
    view, pose = FrontView(canonical_landmarks(), CAMERA), smooth_poses()[0]
    grey = np.full((SIZE, SIZE), 128, np.uint8)
    follower = SkinFollower(view, grey, pose)
    assert follower.gather([follower.follow(grey, pose)] * 3) is None


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)
