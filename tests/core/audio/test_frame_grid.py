import numpy as np
import pytest

from gensync_core.audio.frame_grid import encode_on_grid, pool_to_frames, split


class ClockEncoder:
    """States that say at what time of the whole speech they were heard: the samples carry their own time."""

    step_s = 0.02
    offset_s = 0.0
    chunk_frames = 50
    margin_frames = 5

    def __init__(self) -> None:
        self.longest = 0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        self.longest = max(self.longest, len(samples))
        start_s = samples[0]
        return (start_s + self.step_s * np.arange(len(samples) // 320 + 1, dtype=np.float32))[:, None]


def test_whisper_s_grid_is_pooled_with_a_quarter_a_half_a_quarter() -> None:
    states = np.random.default_rng(0).standard_normal((21, 3)).astype(np.float32)
    pooled = pool_to_frames(states, 10, 0.02, 0.0)
    expected = 0.25 * states[0:20:2] + 0.5 * states[1:21:2] + 0.25 * states[2:21:2]
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


@pytest.mark.parametrize(("step_s", "offset_s"), [(0.02, 0.0), (0.02, 0.0125), (0.01, 0.0), (0.04, 0.02), (0.08, 0.0)])
def test_a_ramp_is_read_at_the_frames_centres(step_s: float, offset_s: float) -> None:
    num_frames = 40
    times_s = offset_s + step_s * np.arange(int(num_frames / 25 / step_s) + 1, dtype=np.float32)
    pooled = pool_to_frames(times_s[:, None], num_frames, step_s, offset_s)[:, 0]
    centres_s = (np.arange(num_frames) + 0.5) / 25
    slack = step_s if step_s > 0.04 else 0.011 * (offset_s % 0.02 > 0)
    np.testing.assert_allclose(pooled[2:-2], centres_s[2:-2], atol=slack + 1e-5)


@pytest.mark.parametrize("num_frames", [1, 49, 50, 51, 89, 90, 91, 400])
def test_chunks_keep_every_frame_once_and_away_from_inner_edges(num_frames: int) -> None:
    chunks = list(split(num_frames, 50, 5))
    kept = [frame for chunk in chunks for frame in range(chunk.keep_start, chunk.keep_stop)]
    assert kept == list(range(num_frames))
    for chunk in chunks:
        assert chunk.stop - chunk.start <= 50
        assert chunk.keep_start - chunk.start >= (5 if chunk.start else 0)
        assert chunk.stop - chunk.keep_stop >= (5 if chunk.stop < num_frames else 0)


@pytest.mark.parametrize("seconds", [0.03, 1.0, 2.01, 7.77, 61.0])
def test_long_speech_never_drifts_and_needs_one_chunk_of_memory(seconds: float) -> None:
    encoder = ClockEncoder()
    times_s = np.arange(round(seconds * 16_000), dtype=np.float32) / 16_000
    features = encode_on_grid(times_s, encoder)
    centres_s = (np.arange(max(1, round(seconds * 25))) + 0.5) / 25
    np.testing.assert_allclose(features[:, 0], centres_s, atol=1e-3)
    assert encoder.longest <= 50 * 640 + 320
    assert features.dtype == np.float32
