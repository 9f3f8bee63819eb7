import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from gensync_core.face.landmarks import FaceMesh, detect_faces

PORTRAIT = astronaut()[0:256, 96:352]


@pytest.fixture(scope="module")
def landmarks():
    with FaceMesh() as mesh:
        return mesh.detect(PORTRAIT).landmarks


def test_a_face_lies_where_it_is(landmarks):
    assert landmarks.shape == (478, 3)
    right_eye, left_eye, nose, chin = (landmarks[index] for index in (33, 263, 1, 152))
    assert right_eye[0] < nose[0] < left_eye[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < chin[1]
    assert nose[2] < min(right_eye[2], left_eye[2])
    assert 30 < left_eye[0] - right_eye[0] < 90


@pytest.mark.parametrize("size", [64, 128, 512])
def test_landmarks_scale_with_the_frame(landmarks, size):
    frame = cv2.resize(PORTRAIT, (size, size), interpolation=cv2.INTER_AREA)
    with FaceMesh() as mesh:
        face = mesh.detect(frame)
    offset = (face.landmarks * 256 / size - landmarks)[:, :2]
    assert np.linalg.norm(offset, axis=1).mean() < (3.0 if size == 64 else 1.2)
    assert np.abs(offset.mean(axis=0)).max() < 1.2
    assert face.confidence == 1


def test_no_face_gives_none():
    with FaceMesh() as mesh:
        assert mesh.detect(np.full((128, 128, 3), 90, np.uint8)) is None


def test_same_frames_give_the_same_landmarks():
    frames = [np.roll(PORTRAIT, shift, axis=1) for shift in (0, 3, 7)]

    def run():
        with FaceMesh() as mesh:
            return np.array([mesh.detect(frame).landmarks for frame in frames])

    np.testing.assert_array_equal(run(), run())


def test_faces_are_counted():
    one = astronaut()
    two = np.concatenate([one, one[:, ::-1]], axis=1)
    assert len(detect_faces(one)) == 1
    assert len(detect_faces(two)) == 2
    assert detect_faces(np.full((200, 300, 3), 128, np.uint8)) == []


def test_box_is_around_the_face():
    box = detect_faces(astronaut())[0]
    assert 160 < box.x < 200
    assert 50 < box.y < 110
    assert 80 < box.w < 120
    assert box.score > 0.6
