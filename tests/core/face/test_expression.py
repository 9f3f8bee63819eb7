import numpy as np
import pytest

from gensync_core.face import expression
from gensync_core.face.canonical import canonical_face, canonical_landmarks
from gensync_core.face.regions import LEFT_EYE, LEFT_EYEBROW, LEFT_IRIS, LOWER_INNER_LIP, RIGHT_EYE, RIGHT_IRIS
from gensync_core.geometry.rotation import rotvec_to_matrix


def with_mouth_open(by_dm: float) -> np.ndarray:
    landmarks = canonical_landmarks().copy()
    landmarks[LOWER_INNER_LIP, 1] += by_dm
    return landmarks


def test_aperture_is_the_hand_worked_ratio():
    landmarks = np.zeros((478, 3), dtype=np.float32)
    landmarks[33], landmarks[263] = (-30, 0, 0), (30, 0, 0)
    landmarks[13], landmarks[14] = (0, 40, 5), (0, 52, -9)
    assert expression.mouth_aperture(landmarks) == pytest.approx(0.2)


def test_ratios_do_not_change_with_scale_roll_and_place():
    landmarks = with_mouth_open(0.1).astype(np.float64)
    roll = rotvec_to_matrix(np.array([0, 0, 0.6]))
    moved = landmarks @ roll.T * 137.0 + np.array([300, -40, 12])
    for measure in (expression.mouth_aperture, expression.mouth_width, expression.blink, expression.upper_face):
        np.testing.assert_allclose(measure(moved), measure(landmarks), atol=1e-6)


def test_aperture_grows_with_the_opening_and_keeps_batch_axes():
    openings = np.stack([with_mouth_open(by) for by in (0.0, 0.05, 0.1)])[None]
    aperture = expression.mouth_aperture(openings)
    assert aperture.shape == (1, 3)
    assert (np.diff(aperture) > 0.03).all()
    assert expression.upper_face(openings).shape == (1, 3, 6)


def test_turning_the_head_hardly_changes_the_aperture():
    landmarks = with_mouth_open(0.1).astype(np.float64)
    turned = landmarks @ rotvec_to_matrix(np.array([0, np.radians(30), 0])).T
    np.testing.assert_allclose(expression.mouth_aperture(turned), expression.mouth_aperture(landmarks), rtol=0.02)


def test_left_is_the_speakers_left():
    rest = expression.RestingFace.of(canonical_landmarks()[None])
    closed = canonical_landmarks().copy()
    closed[list(LEFT_EYE), 1] = closed[list(LEFT_EYE), 1].mean()
    closed[list(LEFT_EYEBROW), 1] -= 0.05
    values = expression.upper_face(closed, rest)
    assert values[0] == pytest.approx(1)
    assert values[1] == pytest.approx(0, abs=1e-6)
    assert values[2] > 0.3
    assert values[3] == pytest.approx(0, abs=0.05)
    assert canonical_landmarks()[list(LEFT_EYE), 0].mean() > 0 > canonical_landmarks()[list(RIGHT_EYE), 0].mean()


def test_gaze_follows_the_irises():
    rest = expression.RestingFace.of(canonical_landmarks()[None])
    aside = canonical_landmarks().copy()
    aside[list(LEFT_IRIS + RIGHT_IRIS)] += np.array([0.04, -0.02, 0])
    gaze_x, gaze_y = expression.upper_face(aside, rest)[4:]
    assert gaze_x > 0.1
    assert gaze_y < -0.05


def test_canonical_face_is_a_face_in_our_axes():
    vertices, triangles = canonical_face()
    np.testing.assert_allclose(vertices.mean(axis=0), 0, atol=1e-5)
    assert vertices[:, 2].argmin() in {1, 4, 5, 19}  # the nose's tip is nearest to the camera
    assert vertices[152, 1] > vertices[14, 1] > vertices[13, 1] > vertices[1, 1] > vertices[33, 1] > vertices[10, 1]
    assert 1.0 < vertices[:, 0].max() - vertices[:, 0].min() < 2.0
    assert triangles.min() == 0
    assert triangles.max() == 467
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = (normals * corners.mean(axis=1)).sum(axis=1) > 0
    assert outward.mean() > 0.7
