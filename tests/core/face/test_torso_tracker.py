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
    jacket = cv2.GaussianBlur(rng.normal(size=(size_px, size_px)), (0, 0), 4 * scale)
    jacket = (255 * (jacket - jacket.min()) / np.ptp(jacket)).astype(np.uint8)
    turn = cv2.getRotationMatrix2D((ABOUT[0] * scale, ABOUT[1] * scale), -np.degrees(roll), 1.0)
    turn[:, 2] += np.array(shift_px) * scale
    image = cv2.warpAffine(jacket, turn, (size_px, size_px), borderMode=cv2.BORDER_REFLECT)
    labels = np.full((size_px, size_px), Region.TORSO, np.uint8)
    labels[: size_px // 2], image[: size_px // 2] = Region.HAIR, 90
    return BodyView(image, labels)


def _shift_and_roll(warp: np.ndarray, about: tuple[float, float]) -> tuple[np.ndarray, float]:
    return warp @ [*about, 1.0] - about, np.arctan2(warp[1, 0], warp[0, 0])


def test_shift_and_roll_of_a_body_are_found():
    motions = [((0.0, 0.0), 0.0), ((2.5, -1.0), 0.01), ((5.0, -2.0), 0.03), ((-1.5, 3.0), -0.02)]
    track = track_torso(_view((0, 0), 0), [_view(*motion) for motion in motions])
    assert not track.lost.any()
    for warp, (true_shift, true_roll) in zip(track.warp, motions, strict=True):
        shift, roll = _shift_and_roll(warp, ABOUT)
        np.testing.assert_allclose(shift, true_shift, atol=0.15)
        assert abs(roll - true_roll) < 0.004


def test_a_body_that_comes_nearer_grows():
    near = _view((0.0, 0.0), 0.0)
    grow = cv2.getRotationMatrix2D(ABOUT, 0.0, 1.05)
    near = near._replace(image=cv2.warpAffine(near.image, grow, (SIZE_PX, SIZE_PX), borderMode=cv2.BORDER_REFLECT))
    warp = track_torso(_view((0, 0), 0), [near]).warp[0]
    np.testing.assert_allclose(warp[:, :2], 1.05 * np.eye(2), atol=0.01)
    np.testing.assert_allclose(_shift_and_roll(warp, ABOUT)[0], 0, atol=0.3)


def test_large_frames_are_measured_in_their_own_pixels():
    views = [_view(motion, 0.0, size_px=640) for motion in ((0.0, 0.0), (2.0, 1.0))]
    shift, _ = _shift_and_roll(track_torso(views[0], views[1:]).warp[0], (ABOUT[0] * 4, ABOUT[1] * 4))
    np.testing.assert_allclose(shift, [8.0, 4.0], atol=0.6)


@pytest.mark.parametrize("without", ["texture", "body"])
def test_a_body_that_cannot_be_followed_is_lost_and_the_next_frame_is_not(without):
    good, bad = _view((1.0, 0.0), 0.0), _view((1.0, 0.0), 0.0)
    if without == "texture":
        bad.image[:] = np.random.default_rng(1).integers(0, 255, bad.image.shape)
    else:
        bad.labels[:] = Region.BACKGROUND
    track = track_torso(_view((0, 0), 0), [bad, good])
    assert track.lost.tolist() == [True, False]
    np.testing.assert_allclose(_shift_and_roll(track.warp[1], ABOUT)[0], [1.0, 0.0], atol=0.15)


CAMERA = Intrinsics(fx=200.0, fy=200.0, cx=80.0, cy=80.0, width=SIZE_PX, height=SIZE_PX)


def _project(points):
    return points[:, :2] / points[:, 2:] * CAMERA.fx + CAMERA.cx


def _warp(shift: tuple[float, float]) -> np.ndarray:
    return np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])


def test_a_body_pose_moves_points_of_any_depth_as_the_picture_was_moved():
    points = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1, 0.5] + [0, 0, 5]
    warp = np.array([[1.02, -0.1, 3.0], [0.08, 0.97, -2.0]])
    pose = body_poses(TorsoTrack(warp[None], np.array([False])), CAMERA)[0]
    expected = _project(points) @ warp[:, :2].T + warp[:, 2]
    np.testing.assert_allclose(_project(points @ pose[:3, :3].T + pose[:3, 3]), expected, atol=1e-3)


def test_lost_frames_are_filled_from_their_neighbours():
    track = TorsoTrack(np.stack([_warp(shift) for shift in ((0, 0), (99, 99), (4, 2), (99, 99))]), np.array([0, 1, 0, 1], bool))
    np.testing.assert_allclose(body_poses(track, CAMERA)[:, :2, 2] * CAMERA.fx, [[0, 0], [2, 1], [4, 2], [4, 2]], atol=1e-4)


def test_a_body_that_was_hardly_ever_seen_stands_still(caplog):
    poses = body_poses(TorsoTrack(np.stack([_warp((1, 1))] * 10), np.arange(10) > 1), CAMERA)
    np.testing.assert_array_equal(poses, np.tile(np.eye(4), (10, 1, 1)))
    assert "2 of 10 frames" in caplog.text


def test_the_reference_frame_is_the_most_common_pose():
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = [0.9, 0.1, -1.0, 0.5, -0.2]
    assert reference_frame(poses) == 1
