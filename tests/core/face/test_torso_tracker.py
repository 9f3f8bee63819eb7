import cv2
import numpy as np
import pytest

from gensync_core.face.regions import Region
from gensync_core.face.torso_tracker import BodyView, TorsoTrack, body_poses, reference_frame, track_torso
from gensync_core.geometry.camera import Intrinsics

SIZE_PX = 160
ABOUT = (80.0, 130.0)


def _view(shift_px: tuple[float, float], roll: float, size_px: int = SIZE_PX) -> BodyView:
    """Blobs of a jacket, moved about `ABOUT`, under a head that stays where it is."""
    rng = np.random.default_rng(0)
    scale = size_px / SIZE_PX
    jacket = cv2.GaussianBlur(rng.normal(size=(size_px, size_px, 3)), (0, 0), 4 * scale)
    jacket = (255 * (jacket - jacket.min()) / np.ptp(jacket)).astype(np.uint8)
    turn = cv2.getRotationMatrix2D((ABOUT[0] * scale, ABOUT[1] * scale), -np.degrees(roll), 1.0)
    turn[:, 2] += np.array(shift_px) * scale
    image = cv2.warpAffine(jacket, turn, (size_px, size_px), borderMode=cv2.BORDER_REFLECT)
    labels = np.full((size_px, size_px), Region.TORSO, np.uint8)
    labels[: size_px // 2], image[: size_px // 2] = Region.HAIR, 90
    return BodyView(image, labels)


def test_shift_and_roll_of_a_body_are_found():
    motions = [((0.0, 0.0), 0.0), ((2.5, -1.0), 0.01), ((5.0, -2.0), 0.03), ((-1.5, 3.0), -0.02)]
    track = track_torso(_view((0, 0), 0), [_view(*motion) for motion in motions], ABOUT)
    assert not track.lost.any()
    np.testing.assert_allclose(track.shift_px, [shift for shift, _ in motions], atol=0.15)
    np.testing.assert_allclose(track.roll, [roll for _, roll in motions], atol=0.004)


def test_large_frames_are_measured_in_their_own_pixels():
    views = [_view(motion, 0.0, size_px=640) for motion in ((0.0, 0.0), (2.0, 1.0))]
    track = track_torso(views[0], views[1:], (ABOUT[0] * 4, ABOUT[1] * 4))
    np.testing.assert_allclose(track.shift_px[0], [8.0, 4.0], atol=0.6)


@pytest.mark.parametrize("without", ["texture", "body"])
def test_a_body_that_cannot_be_followed_is_lost_and_the_next_frame_is_not(without):
    good, bad = _view((1.0, 0.0), 0.0), _view((1.0, 0.0), 0.0)
    if without == "texture":
        bad.image[:] = np.random.default_rng(1).integers(0, 255, bad.image.shape)
    else:
        bad.labels[:] = Region.BACKGROUND
    track = track_torso(_view((0, 0), 0), [bad, good], ABOUT)
    assert track.lost.tolist() == [True, False]
    np.testing.assert_allclose(track.shift_px[1], [1.0, 0.0], atol=0.15)


CAMERA = Intrinsics(fx=200.0, fy=200.0, cx=80.0, cy=80.0, width=SIZE_PX, height=SIZE_PX)


def _project(points):
    return points[:, :2] / points[:, 2:] * CAMERA.fx + CAMERA.cx


def test_a_body_pose_moves_points_of_any_depth_as_the_picture_was_moved():
    points = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1, 0.5] + [0, 0, 5]
    shift, roll = np.array([3.0, -2.0]), 0.1
    pose = body_poses(TorsoTrack(shift[None], np.array([roll]), np.array([False])), CAMERA)[0]
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    expected = (_project(points) - CAMERA.cx) @ turn.T + CAMERA.cx + shift
    np.testing.assert_allclose(_project(points @ pose[:3, :3].T + pose[:3, 3]), expected, atol=1e-4)


def test_lost_frames_are_filled_from_their_neighbours():
    shift = np.array([[0.0, 0.0], [99.0, 99.0], [4.0, 2.0]])
    poses = body_poses(TorsoTrack(shift, np.zeros(3), np.array([False, True, False])), CAMERA)
    np.testing.assert_allclose(poses[:, :2, 2] * CAMERA.fx, [[0, 0], [2, 1], [4, 2]], atol=1e-5)


def test_a_body_that_was_hardly_ever_seen_stands_still(caplog):
    poses = body_poses(TorsoTrack(np.ones((10, 2)), np.ones(10), np.arange(10) > 1), CAMERA)
    np.testing.assert_array_equal(poses, np.tile(np.eye(4), (10, 1, 1)))
    assert "2 of 10 frames" in caplog.text


def test_the_reference_frame_is_the_most_common_pose():
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = [0.9, 0.1, -1.0, 0.5, -0.2]
    assert reference_frame(poses) == 1
