import numpy as np
import pytest

from gensync_core.face.expression_basis import ExpressionBasis, fit_expressions

T, L, TRUE = 150, 30, 3


@pytest.fixture
def true() -> ExpressionBasis:
    """Three expressions that come and go smoothly."""
    rng = np.random.default_rng(3)
    directions = np.linalg.qr(rng.normal(size=(L * 3, TRUE)))[0].T.reshape(TRUE, L, 3)
    time = np.arange(T)[:, None] / 25
    weights = np.sin(time * np.array([7.0, 5.0, 3.0])) * np.array([1.0, 0.5, 0.3])
    return ExpressionBasis(directions.astype(np.float32), weights.astype(np.float32))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def test_as_many_directions_are_found_as_explain_the_motion(true: ExpressionBasis) -> None:
    found = fit_expressions(true.motion(), np.ones(T, bool))
    assert len(found.directions) == TRUE
    flat = found.directions.reshape(TRUE, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(TRUE), atol=1e-5)
    assert rms(found.motion() - true.motion()) < 0.1 * rms(true.motion())
    np.testing.assert_allclose(found.motion(slice(3, 9), np.array([4, 7])), found.motion()[3:9, [4, 7]], rtol=1e-5)


def test_noise_of_single_frames_is_taken_out(true: ExpressionBasis) -> None:
    noise = 0.05 * np.random.default_rng(4).normal(size=(T, L, 3)).astype(np.float32)
    found = fit_expressions(true.motion() + noise, np.ones(T, bool))
    assert rms(found.motion() - true.motion()) < 0.6 * rms(noise)


def test_frames_that_were_not_found_say_nothing_and_lie_between_their_neighbours(true: ExpressionBasis) -> None:
    seen = np.ones(T, bool)
    seen[[0, 60, 61, 62, T - 1]] = False
    spoilt = np.where(seen[:, None, None], true.motion(), np.float32(9))
    found = fit_expressions(spoilt, seen)
    assert rms(found.motion() - true.motion()) < 0.15 * rms(true.motion())
    steps = np.diff(found.weights[59:64], axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps.mean(axis=0), steps.shape), atol=1e-3)


@pytest.mark.parametrize("frames", [1, 2])
def test_still_faces_and_clips_of_a_frame_have_no_motion(frames: int) -> None:
    found = fit_expressions(np.zeros((frames, L, 3), np.float32), np.ones(frames, bool))
    assert found.weights.shape[0] == frames
    assert not found.motion().any()
