import numpy as np
import pytest

from gensync_core.evaluation.controls import shuffle_order, shuffled_features
from gensync_core.evaluation.jitter import jitter_ratio, landmark_jitter
from gensync_core.evaluation.lip_sync import (
    aperture_correlation,
    chance_correlation,
    landmark_distance,
    movement_ratio,
    offset_frames,
)
from gensync_core.face.regions import LEFT_EYE_OUTER, LIPS, RIGHT_EYE_OUTER


def speech_like(frames, seed=0):
    """An opening that changes at the rate of syllables: white noise, smoothed over about a fifth of a second."""
    noise = np.random.default_rng(seed).standard_normal(frames + 8)
    return np.convolve(noise, np.hanning(9), mode="valid") * 0.02 + 0.1


def faces(frames=4):
    points = np.random.default_rng(3).uniform(20, 100, (frames, 478, 3)).astype(np.float32)
    points[:, RIGHT_EYE_OUTER] = (40, 50, 0)
    points[:, LEFT_EYE_OUTER] = (80, 50, 0)
    return points


def test_landmark_distance_ignores_where_the_mouth_is():
    moved = faces() + np.array([7, -3, 5], dtype=np.float32)
    assert landmark_distance(moved, faces(), 128).px512 == pytest.approx(0, abs=1e-4)


def test_landmark_distance_of_a_known_change():
    # Half of the lips go up by 3 px, half go down: every landmark is 3 px off, the mean stays.
    driven = faces()
    driven[:, LIPS[:20], 1] += 3
    driven[:, LIPS[20:], 1] -= 3
    distance = landmark_distance(driven, faces(), 128)
    assert distance.px512 == pytest.approx(12, rel=1e-4)  # 3 px at 128 are 12 px at 512
    assert distance.iod == pytest.approx(3 / 40, rel=1e-4)


def test_landmark_distance_skips_frames_without_a_face():
    driven, true = faces(), faces()
    driven[0], true[1] = np.nan, np.nan
    assert landmark_distance(driven, true, 128).iod == pytest.approx(0, abs=1e-6)
    assert np.isnan(landmark_distance(np.full_like(true, np.nan), true, 128).px512)


def test_correlation_by_hand():
    # a = (-1, 0, 1), b = (-4/3, 2/3, 2/3) after centring: 2 / sqrt(2 * 8/3)
    assert aperture_correlation(np.array([0.0, 1, 2]), np.array([1.0, 3, 3])) == pytest.approx(np.sqrt(3) / 2)
    assert aperture_correlation(np.array([0.0, 1, 2]), np.array([4.0, 2, 0])) == pytest.approx(-1)


def test_correlation_ignores_unknown_frames_and_knows_its_limits():
    true, driven = np.array([0.0, 1, np.nan, 2, 9]), np.array([1.0, 3, 5, 3, np.nan])
    assert aperture_correlation(true, driven) == pytest.approx(np.sqrt(3) / 2)
    assert np.isnan(aperture_correlation(np.array([0.0, np.nan, 1]), np.array([0.0, 1, 1])))
    assert np.isnan(aperture_correlation(np.ones(5), np.arange(5.0)))
    assert aperture_correlation(np.arange(5.0), np.ones(5)) == 0  # a mouth that does not move follows nothing
    with pytest.raises((ValueError, TypeError)):  # the shape checker of the tests may be first
        aperture_correlation(np.ones(5), np.ones(4))


@pytest.mark.parametrize("late", [-7, -1, 0, 3, 10])
def test_offset_recovers_a_shift_and_is_positive_when_the_mouth_is_late(late):
    curve = speech_like(220)
    true, driven = curve[10:210], curve[10 - late : 210 - late]
    found = offset_frames(true, driven)
    assert found is not None
    assert found.frames == late
    assert found.correlation == pytest.approx(1)


def test_offset_survives_lost_frames_and_noise():
    curve = speech_like(220)
    true, driven = curve[10:210].copy(), curve[8:208] + 0.01 * np.random.default_rng(5).standard_normal(200)
    true[20:30], driven[100:120] = np.nan, np.nan
    found = offset_frames(true, driven)
    assert found is not None
    assert found.frames == 2


def test_offset_is_refined_below_a_frame():
    time = np.arange(200)
    found = offset_frames(np.sin(time * 0.5), np.sin((time - 2.3) * 0.5), max_offset=5)
    assert found is not None
    assert found.subframe == pytest.approx(2.3, abs=0.05)


def test_no_offset_without_movement():
    assert offset_frames(speech_like(50), np.full(50, 0.1)) is None
    assert offset_frames(np.array([0.1, 0.2]), np.array([0.1, 0.2])) is None


def test_a_perfect_follower_is_near_zero_with_shuffled_sound():
    # An avatar whose mouth is a function of the sound: driven by other sound it makes the other sound's openings.
    scores = []
    for seed in range(20):
        curve = speech_like(400, seed)
        driven = shuffled_features(curve[:, None], 200, 200, shift=50)[200:, 0]
        scores.append(aperture_correlation(curve[200:], driven))
    assert abs(np.mean(scores)) < 0.1
    assert np.max(np.abs(scores)) < 0.5


def test_chance_grows_as_the_segment_shrinks():
    long, short = (
        np.mean([chance_correlation(speech_like(n, seed), speech_like(n, 100 + seed), n // 4) for seed in range(20)])
        for n in (400, 40)
    )
    assert 0 < long < 0.2 < short


@pytest.mark.parametrize(("frames", "shift"), [(2, 50), (18, 50), (75, 50), (100, 50), (162, 50), (1000, 50), (163, 1)])
def test_shuffled_order_is_a_permutation_that_keeps_its_distance(frames, shift):
    order = shuffle_order(frames, shift)
    assert sorted(order) == list(range(frames))
    distance = np.abs(order - np.arange(frames))
    assert np.minimum(distance, frames - distance).min() >= min(shift, frames // 2) // 2


def test_shuffling_touches_only_the_segment():
    features = np.random.default_rng(0).random((60, 4)).astype(np.float32)
    shuffled = shuffled_features(features, 20, 30, shift=8)
    assert (shuffled[:20] == features[:20]).all()
    assert (shuffled[50:] == features[50:]).all()
    assert (shuffled[20:50] != features[20:50]).any(axis=1).all()
    assert shuffle_order(0, 5).size == 0


def test_movement_ratio():
    assert movement_ratio(np.array([0.1, 0.1, np.nan]), np.array([0.0, 0.2])) == pytest.approx(0)
    assert movement_ratio(np.array([0.0, 0.1]), np.array([0.0, 0.2])) == pytest.approx(0.5)
    assert np.isnan(movement_ratio(np.array([0.0, 0.1]), np.array([0.2, 0.2])))


def test_jitter_by_hand():
    # One landmark at x = 0, 0, 3, 0 with y still: second differences 3 and -6.
    points = np.zeros((4, 1, 3))
    points[2, 0, 0] = 3
    assert landmark_jitter(points) == pytest.approx(4.5)
    steady = np.arange(5.0)[:, None, None] * np.ones((5, 2, 3))
    assert landmark_jitter(steady) == pytest.approx(0)
    assert jitter_ratio(2 * points, points) == pytest.approx(2)


def test_jitter_leaves_out_lost_frames():
    points = np.zeros((7, 1, 2))
    points[6, 0, 0], points[2] = 5, np.nan
    assert landmark_jitter(points) == pytest.approx(2.5)  # of frames 3..6: 0 and 5
    assert np.isnan(landmark_jitter(points[:2]))
    assert np.isnan(jitter_ratio(points, np.zeros((7, 1, 2))))
