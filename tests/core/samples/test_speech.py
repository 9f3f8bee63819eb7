from pathlib import Path

import numpy as np
import pytest

from gensync_core.artefacts import read_tensors
from gensync_core.audio.audio_params import AudioParams
from gensync_core.audio.features import encode
from gensync_core.audio.waveform import load_waveform, write_waveform
from gensync_core.errors import UsageError
from gensync_core.samples.phones import CONSONANTS, VOWELS, random_talk
from gensync_core.samples.speech import Speech, make_speech, recorded_speech, synthetic_speech

RIDGE = 3000.0


def ridge_correlation(encoder: str, train: Speech, test: Speech) -> tuple[float, float]:
    """Correlation of the aperture that a ridge reads from features (+-4 frames), true and against a shift by 2 s."""
    params = AudioParams(encoder=encoder, layer=3, allow_log_mel_fallback=False)
    known, unknown = (encode(speech.samples, params).values for speech in (train, test))
    mean, deviation = known.mean(axis=0), known.std(axis=0) + 1e-3
    inputs = with_context((known - mean) / deviation)
    weights = np.linalg.solve(
        inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1]), inputs.T @ (train.aperture - train.aperture.mean())
    )
    predicted = with_context((unknown - mean) / deviation) @ weights
    return float(np.corrcoef(predicted, test.aperture)[0, 1]), float(np.corrcoef(predicted, np.roll(test.aperture, 50))[0, 1])


def with_context(features: np.ndarray, reach: int = 4) -> np.ndarray:
    frames = np.arange(len(features))
    return np.concatenate([features[(frames + shift).clip(0, len(features) - 1)] for shift in range(-reach, reach + 1)], axis=1)


@pytest.mark.parametrize("voice", ["a", "b"])
def test_the_mouth_is_a_function_of_the_sound_log_mel(voice: str) -> None:
    true, shifted = ridge_correlation("log-mel", synthetic_speech(16, 1, voice), synthetic_speech(8, 2, voice))
    assert true > 0.7
    assert shifted < 0.4


def test_the_mouth_is_a_function_of_the_sound_whisper(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSYNC_ASSETS", str(shared_data / "models"))
    true, shifted = ridge_correlation("whisper-tiny.en", synthetic_speech(16, 1, "a"), synthetic_speech(8, 2, "a"))
    assert true > 0.9
    assert shifted < 0.4


def test_lips_close_and_open_and_the_sound_follows() -> None:
    speech = synthetic_speech(20, 0, "a")
    assert len(speech.samples) == 640 * len(speech.aperture) == 640 * 500
    assert speech.aperture.min() == 0
    assert 0.25 < speech.aperture.max() < 0.36
    assert 0.1 < (speech.aperture < 0.01).mean() < 0.6
    assert (speech.width.min() < -0.5) & (speech.width.max() > 0.5)
    assert 0.4 < np.abs(speech.samples).max() <= 0.5
    loudness = np.square(speech.samples.reshape(-1, 640)).mean(axis=1)
    assert loudness[speech.aperture > 0.2].mean() > 5 * loudness[speech.aperture == 0].mean()


def test_the_same_seed_says_the_same_and_others_do_not() -> None:
    first, again, other, voice = (synthetic_speech(3, seed, name) for seed, name in ((5, "a"), (5, "a"), (6, "a"), (5, "b")))
    np.testing.assert_array_equal(first.samples, again.samples)
    np.testing.assert_array_equal(first.aperture, again.aperture)
    assert not np.array_equal(first.samples, other.samples)
    assert not np.array_equal(first.samples, voice.samples)


def test_talk_has_natural_timing_and_uses_all_phones() -> None:
    talk = random_talk(30.0, np.random.default_rng(0))
    assert talk.duration_s >= 30.0
    assert all(abs(item.start_s - before.stop_s) < 1e-9 for before, item in zip(talk.spoken, talk.spoken[1:], strict=False))
    vowels = [item for item in talk.spoken if item.phone in VOWELS]
    assert 2.0 < len(vowels) / talk.duration_s < 5.0
    assert {item.phone.name for item in talk.spoken} == {phone.name for phone in (*VOWELS, *CONSONANTS)} | {"-"}


def test_make_speech_writes_sound_and_truth(tmp_path: Path) -> None:
    speech = make_speech(tmp_path / "held_out.wav", seconds=2.0, seed=3, voice="b")
    assert np.abs(load_waveform(tmp_path / "held_out.wav") - speech.samples).max() < 1e-4
    truth, meta = read_tensors(tmp_path / "held_out.truth.safetensors")
    np.testing.assert_array_equal(truth["aperture"], speech.aperture)
    assert meta["voice"] == "b"
    with pytest.raises(UsageError, match="voice"):
        make_speech(tmp_path / "x.wav", voice="c")
    with pytest.raises(ValueError, match="seconds"):
        synthetic_speech(0.0, 0, "a")


def test_a_recording_opens_the_mouth_where_it_is_loud(tmp_path: Path) -> None:
    spoken = synthetic_speech(4.0, 0, "a")
    write_waveform(tmp_path / "speech.wav", spoken.samples[: 640 * 90 + 100])
    recorded = recorded_speech(tmp_path / "speech.wav", seconds=10.0)
    assert len(recorded.aperture) == 90
    assert len(recorded.samples) == 90 * 640
    assert np.corrcoef(recorded.aperture, spoken.aperture[:90])[0, 1] > 0.5
    assert 0 <= recorded.aperture.min() < recorded.aperture.max() <= 0.34
    assert np.abs(recorded.width).max() <= 1
    assert len(recorded_speech(tmp_path / "speech.wav", seconds=1.0).aperture) == 25
