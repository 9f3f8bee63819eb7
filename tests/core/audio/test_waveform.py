from pathlib import Path

import numpy as np
import pytest
import soundfile

from gensync_core.audio import waveform
from gensync_core.audio.waveform import (
    iter_waveform,
    load_waveform,
    num_video_frames,
    silence,
    store_waveform,
    write_waveform,
)
from gensync_core.errors import FootageRejected


@pytest.mark.parametrize(
    ("num_samples", "frames"), [(1, 1), (319, 1), (640, 1), (959, 1), (960, 2), (1280, 2), (16000, 25), (16000 * 7 + 330, 176)]
)
def test_frames_are_the_nearest_whole_number_and_at_least_one(num_samples: int, frames: int) -> None:
    assert num_video_frames(num_samples) == frames


def test_any_rate_and_channels_become_16_khz_mono(tmp_path: Path) -> None:
    rate_hz = 44_100
    times_s = np.arange(rate_hz) / rate_hz
    left, right = 0.6 * np.sin(2 * np.pi * 440 * times_s), np.zeros(rate_hz)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], axis=1), rate_hz, subtype="PCM_24")
    samples = load_waveform(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 16_000) <= 1
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / 16_000)
    assert np.abs(samples - expected)[200:-200].max() < 2e-3


def test_what_is_written_is_read_back_to_within_a_step_of_16_bits(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    write_waveform(tmp_path / "a.wav", samples)
    write_waveform(tmp_path / "b.wav", samples)
    assert np.abs(load_waveform(tmp_path / "a.wav") - samples).max() < 1.01 / 2**15
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_files_without_sound_are_rejected(tmp_path: Path) -> None:
    empty, text, no_samples = tmp_path / "empty.wav", tmp_path / "text.wav", tmp_path / "none.wav"
    empty.touch()
    text.write_text("not sound")
    soundfile.write(no_samples, silence(0), 16_000)
    broken = tmp_path / "nan.wav"
    soundfile.write(broken, np.array([0.0, np.nan], dtype=np.float32), 16_000, subtype="FLOAT")
    for path in (empty, text, no_samples, broken, tmp_path / "missing.wav"):
        with pytest.raises(FootageRejected, match=path.name):
            load_waveform(path)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000, 8_000, 11_025])
def test_blocks_are_the_samples_that_resampling_at_once_gives(
    rate_hz: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.signal import resample_poly

    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(3.21 * rate_hz)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate_hz, subtype="FLOAT")
    monkeypatch.setattr(waveform, "_BLOCK_S", 1)
    blocks = list(iter_waveform(tmp_path / "a.wav"))
    assert len(blocks) == 4
    divisor = np.gcd(rate_hz, 16_000)
    expected = resample_poly(samples, 16_000 // divisor, rate_hz // divisor) if rate_hz != 16_000 else samples
    np.testing.assert_allclose(np.concatenate(blocks), expected.clip(-1, 1), atol=1e-6)


def test_what_is_stored_piece_by_piece_is_read_back_exactly(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    assert store_waveform(tmp_path / "a.wav", np.array_split(samples, 7)) == 5000
    np.testing.assert_array_equal(load_waveform(tmp_path / "a.wav"), samples)


def test_sound_in_a_video_container_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (0.5 * np.sin(np.arange(40_000) / 20)).astype(np.float32)
    soundfile.write(tmp_path / "a.ogg", samples, 16_000)
    monkeypatch.setattr(waveform, "_BLOCK_S", 1)
    blocks = list(iter_waveform(tmp_path / "a.ogg"))
    assert len(blocks) == 3
    assert abs(np.concatenate(blocks)[1000:39_000] - samples[1000:39_000]).max() < 0.05
