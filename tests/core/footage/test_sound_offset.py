"""Sound that was moved is found where it was moved to, and nothing is found where there is nothing to find."""

import numpy as np
import pytest

from gensync_core.artefacts import read_tensors
from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME, load_waveform
from gensync_core.footage.sound_offset import (
    MIN_FRAMES,
    WatchedSpeech,
    measure_offset,
    mouth_distances,
    mouth_features,
    sound_features,
)
from gensync_core.samples import make_sample

SECONDS = 16


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> WatchedSpeech:
    """The astronaut's mouth by its truth: no face mesh is needed."""
    files = make_sample("astronaut", tmp_path_factory.mktemp("sample") / "clip.mp4", seconds=SECONDS, size=64)
    truth, _ = read_tensors(files.truth)
    mouth = np.stack([mouth_distances(landmarks) for landmarks in truth["landmarks_px"]])
    return WatchedSpeech(mouth, load_waveform(files.video)[: len(mouth) * SAMPLES_PER_FRAME])


def late(watched: WatchedSpeech, seconds: float) -> WatchedSpeech:
    return WatchedSpeech(watched.mouth, np.roll(watched.samples, round(seconds * 16_000)))


@pytest.mark.parametrize("shift_s", [-0.4, -0.2, 0.0, 0.1, 0.24, 0.4])
def test_moved_sound_is_found(watched: WatchedSpeech, shift_s: float) -> None:
    found = measure_offset([late(watched, shift_s)])
    assert found is not None
    assert found.seconds == pytest.approx(shift_s, abs=0.06)
    assert found.certainty > 4.2


def test_stretches_speak_together(watched: WatchedSpeech) -> None:
    half = len(watched.mouth) // 2
    moved = late(watched, 0.2)
    parts = [
        WatchedSpeech(moved.mouth[first : first + half], moved.samples[first * SAMPLES_PER_FRAME :][: half * SAMPLES_PER_FRAME])
        for first in (0, half)
    ]
    found = measure_offset(parts)
    assert found is not None
    assert found.seconds == pytest.approx(0.2, abs=0.06)
    (one, other) = (measure_offset([part]) for part in parts)
    assert one is not None
    assert other is not None
    assert found.correlation == pytest.approx((one.correlation + other.correlation) / 2, abs=0.05)


def test_a_stranger_s_sound_is_not_certain(watched: WatchedSpeech) -> None:
    backwards = WatchedSpeech(watched.mouth, watched.samples[::-1].copy())
    found = measure_offset([backwards])
    assert found is not None
    assert found.certainty < 3.5


def test_frames_without_a_face_do_not_matter(watched: WatchedSpeech) -> None:
    mouth = watched.mouth.copy()
    mouth[50:70] = np.nan
    found = measure_offset([late(WatchedSpeech(mouth, watched.samples), 0.2)])
    assert found is not None
    assert found.seconds == pytest.approx(0.2, abs=0.06)
    mouth[: len(mouth) // 2 + 10] = np.nan
    assert measure_offset([WatchedSpeech(mouth, watched.samples)]) is None


def test_nothing_is_said_of_too_little_or_of_silence(watched: WatchedSpeech) -> None:
    short = WatchedSpeech(watched.mouth[: MIN_FRAMES - 1], watched.samples)
    assert measure_offset([short]) is None
    assert measure_offset([]) is None
    assert measure_offset([WatchedSpeech(watched.mouth, np.zeros_like(watched.samples))]) is None
    assert measure_offset([WatchedSpeech(np.ones_like(watched.mouth), watched.samples)]) is None


def test_features_are_one_vector_a_frame(watched: WatchedSpeech) -> None:
    assert sound_features(watched.samples).shape == (SECONDS * FPS, 5 * 24)
    features = mouth_features(watched.mouth)
    assert features.shape == (SECONDS * FPS, 9)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-6)


def test_distances_do_not_change_with_scale_and_place() -> None:
    landmarks = np.random.default_rng(0).normal(size=(478, 3)) * 40 + 100
    np.testing.assert_allclose(mouth_distances(landmarks), mouth_distances(landmarks * 3 + 7), rtol=1e-6)
