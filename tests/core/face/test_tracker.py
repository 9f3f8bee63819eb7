import numpy as np
import pytest

from gensync_core.errors import FootageRejected
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.face.expression import mouth_aperture
from gensync_core.face.observed_points import rigid_weights
from gensync_core.face.track_params import TrackParams
from gensync_core.face.tracker import track
from gensync_core.geometry.camera import Intrinsics, pose_matrix, project, transform
from gensync_core.geometry.rotation import angle_between, matrix_to_rotvec, rotvec_to_matrix

T, SIZE = 120, 128
CAMERA = Intrinsics(320.0, 320.0, 64.0, 64.0, SIZE, SIZE)
LIPS = (13, 14)


def true_poses() -> np.ndarray:
    time = np.arange(T) / 25
    rotvecs = np.radians(np.column_stack([8 * np.sin(2 * time), 18 * np.sin(1.3 * time + 0.4), 5 * np.cos(1.7 * time)]))
    translations = np.column_stack([0.3 * np.sin(time), 0.2 * np.cos(1.1 * time), 8 + 0.3 * np.sin(0.7 * time)])
    return pose_matrix(rotvec_to_matrix(rotvecs), translations)


def speaking_face(*, own_shape: bool = True) -> np.ndarray:
    """[T, 478, 3]: the canonical face, or one unlike it, whose lower lip moves."""
    shape = canonical_landmarks().astype(np.float64)
    if own_shape:
        shape = shape * np.array([1.04, 0.98, 1.0])
        shape = shape + 0.01 * np.sin(shape[:, [1, 2, 0]] * 3 + np.array([0.5, 0.9, 0.1]))
    motion = np.zeros((T, *shape.shape))
    motion[:, 14, 1] = 0.06 * (1 + np.sin(np.arange(T) * 0.9))
    return shape + motion


def observe(noise_px: float, *, own_shape: bool = True) -> np.ndarray:
    points = transform(speaking_face(own_shape=own_shape), true_poses())
    pixels = project(points, CAMERA.matrix().astype(np.float64))
    pixels += np.random.default_rng(7).normal(size=pixels.shape) * noise_px
    depth = points[..., 2:] - points[..., 2:].mean(axis=1, keepdims=True)
    return np.concatenate([pixels, depth * CAMERA.fx / 8], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def landmarks():
    return observe(noise_px=0.4)


@pytest.fixture(scope="module")
def result(landmarks):
    return track(landmarks, np.ones(T, np.float32), SIZE, SIZE)


def rotation_errors_deg(head_to_camera: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.degrees(angle_between(head_to_camera[:, :3, :3].astype(np.float64), true[:, :3, :3]))


def test_rotations_of_the_canonical_face_are_right_within_a_degree():
    result = track(observe(noise_px=0.4, own_shape=False), np.ones(T, np.float32), SIZE, SIZE)
    assert rotation_errors_deg(result.head_to_camera, true_poses()).max() < 1


def test_rotations_of_another_face_differ_by_a_constant_turn_only(result):
    """What is straight ahead for a face of one's own shape is a convention; what varies would be error."""
    assert rotation_errors_deg(result.head_to_camera, true_poses()).max() < 4
    true = true_poses()
    turn = result.head_to_camera[T // 2, :3, :3].T @ true[T // 2, :3, :3]
    aligned = result.head_to_camera.astype(np.float64)
    aligned[:, :3, :3] = aligned[:, :3, :3] @ turn
    assert rotation_errors_deg(aligned, true).max() < 2  # with the error of the frame it was aligned at


def test_translations_follow_the_truth(result):
    found, true = result.head_to_camera[:, :3, 3], true_poses()[:, :3, 3]
    for axis, correlation in enumerate((0.99, 0.99, 0.9)):
        assert np.corrcoef(found[:, axis], true[:, axis])[0, 1] > correlation
    ratio = (found[:, :2] / found[:, 2:]) - (true[:, :2] / true[:, 2:])
    assert np.abs(ratio * CAMERA.fx).max() < 1.5


def test_jitter_is_far_below_that_of_unsmoothed_poses(landmarks, result):
    loose = TrackParams(rotation_acceleration_deg=100.0, translation_acceleration_dm=100.0)
    free = track(landmarks, np.ones(T, np.float32), SIZE, SIZE, loose)

    def jitter(tracked):
        rotvecs = matrix_to_rotvec(tracked.head_to_camera[:, :3, :3].astype(np.float64))
        return np.abs(np.diff(rotvecs, n=2, axis=0)).mean()

    assert jitter(result) < 0.6 * jitter(free)


def test_shape_and_motion_reproject_onto_the_landmarks(landmarks, result):
    points = transform((result.canonical_landmarks + result.canonical_motion).astype(np.float64), result.head_to_camera)
    assert np.abs(project(points, result.camera.matrix()) - landmarks[..., :2]).max() < 0.2


def test_expressions_are_the_motion_without_what_single_frames_tremble(result):
    told, opening = result.expressions.motion(), speaking_face()[:, 14, 1]
    assert np.corrcoef(told[:, 14, 1], opening)[0, 1] > 0.9
    still = np.setdiff1d(np.flatnonzero(rigid_weights() >= 1), LIPS)
    assert np.square(told[:, still]).mean() < 0.5 * np.square(result.canonical_motion[:, still]).mean()


def test_what_the_face_does_is_not_taken_for_a_turn_of_the_head():
    """A forehead and a nose that go up and down with the jaw, as the face mesh has them."""
    points = speaking_face(own_shape=False)
    opening = np.sin(np.arange(T) * 0.9)[:, None]
    points[:, [151, 9, 8, 168], 1] += 0.03 * opening
    points[:, [1, 4, 5], 1] += 0.03 * opening
    pixels = project(transform(points, true_poses()), CAMERA.matrix().astype(np.float64))
    seen = np.concatenate([pixels, np.zeros((*pixels.shape[:2], 1))], axis=-1).astype(np.float32)
    result = track(seen, np.ones(T, np.float32), SIZE, SIZE)
    told = result.expressions.motion()[:, 4, 1]
    assert np.corrcoef(told, opening[:, 0])[0, 1] > 0.9
    assert rotation_errors_deg(result.head_to_camera, true_poses()).mean() < 0.5


def test_motion_of_the_lower_lip_is_recovered(result):
    opening = np.diff(result.canonical_motion[:, LIPS, 1], axis=1)[:, 0]
    true = np.diff((speaking_face() - speaking_face().mean(axis=0))[:, LIPS, 1], axis=1)[:, 0]
    assert np.corrcoef(opening, true)[0, 1] > 0.9
    assert np.polyfit(true, opening, 1)[0] == pytest.approx(1, abs=0.1)
    assert np.corrcoef(mouth_aperture(result.landmarks_px), true)[0, 1] > 0.85


def test_the_speakers_own_shape_is_nearer_than_the_canonical_one(result):
    rigid = rigid_weights() >= 1
    own = speaking_face().mean(axis=0)[rigid]
    own, canonical = own - own.mean(axis=0), canonical_landmarks()[rigid]
    found = result.canonical_landmarks[rigid]

    def distance(points):
        points = points - points.mean(axis=0)
        points = points * np.linalg.norm(own[:, :2]) / np.linalg.norm(points[:, :2])
        return np.linalg.norm((points - own)[:, :2])

    assert distance(found) < 0.5 * distance(canonical)


def test_lost_frames_are_marked_and_bridged(landmarks):
    lost = np.zeros(T, dtype=bool)
    lost[[0, 1, 50, 51, 52, 53, T - 1]] = True
    holed = landmarks.copy()
    holed[lost] = np.nan
    result = track(holed, np.where(lost, 0, 1).astype(np.float32), SIZE, SIZE)
    np.testing.assert_array_equal(result.interpolated, lost)
    assert (result.confidence[lost] == 0).all()
    assert (result.confidence[~lost] > 0.5).all()
    for array in (result.landmarks_px, result.head_to_camera, result.canonical_motion):
        assert np.isfinite(array).all()
    assert rotation_errors_deg(result.head_to_camera, true_poses()).max() < 5


def test_most_frames_without_a_face_are_refused(landmarks):
    holed = landmarks.copy()
    holed[T // 3 :] = np.nan
    with pytest.raises(FootageRejected, match=r"67% of the frames \(first at 1\.6 s"):
        track(holed, np.ones(T, np.float32), SIZE, SIZE)
    with pytest.raises(FootageRejected):
        track(np.full_like(landmarks, np.nan), np.zeros(T, np.float32), SIZE, SIZE)


def test_one_frame_is_enough_for_a_pose(landmarks):
    result = track(landmarks[:1], np.ones(1, np.float32), SIZE, SIZE)
    assert rotation_errors_deg(result.head_to_camera, true_poses()[:1])[0] < 5


def test_same_input_same_bits(landmarks, result):
    again = track(landmarks, np.ones(T, np.float32), SIZE, SIZE)
    np.testing.assert_array_equal(again.head_to_camera, result.head_to_camera)
    np.testing.assert_array_equal(again.canonical_motion, result.canonical_motion)


@pytest.mark.parametrize("field", ["focal_prior", "focal_sigma", "rotation_acceleration_deg", "max_lost_share"])
def test_parameters_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=field):
        TrackParams(**{field: -1.0})
