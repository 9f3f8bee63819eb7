import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from gensync_core.audio.frame_grid import Chunking, encode_stream, plan, pool_to_frames, widest


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


@pytest.mark.parametrize("chunking", [widest(ClockEncoder()), Chunking(3, 3, 2, 20), Chunking(1, 1, 0, 1)])
def test_chunks_keep_every_frame_once_and_away_from_inner_edges(chunking: Chunking) -> None:
    chunks = list(itertools.islice(plan(chunking), 20))
    kept = [frame for chunk in chunks for frame in range(chunk.keep_start, chunk.keep_stop)]
    assert kept == list(range(len(kept)))
    for chunk in chunks:
        assert chunk.stop - chunk.start <= chunking.length
        assert chunk.stop - chunk.keep_stop == chunking.look_ahead
        behind = chunking.length - chunking.hop - chunking.look_ahead
        assert chunk.keep_start - chunk.start >= (behind if chunk.start else 0)


def test_margins_that_leave_nothing_are_refused() -> None:
    encoder = ClockEncoder()
    encoder.margin_frames = 25
    with pytest.raises(ValueError, match="leaves nothing"):
        widest(encoder)


@pytest.mark.parametrize("seconds", [0.03, 1.0, 2.0, 2.01, 2.03, 7.77, 61.0])
@pytest.mark.parametrize("chunking", [widest(ClockEncoder()), Chunking(3, 3, 2, 20)])
def test_long_speech_never_drifts_and_needs_one_chunk_of_memory(seconds: float, chunking: Chunking) -> None:
    encoder = ClockEncoder()
    times_s = np.arange(round(seconds * 16_000), dtype=np.float32) / 16_000
    features = np.concatenate(list(encode_stream([times_s], encoder, chunking)))
    centres_s = (np.arange(max(1, round(seconds * 25))) + 0.5) / 25
    np.testing.assert_allclose(features[:, 0], centres_s, atol=1e-3)
    assert encoder.longest <= chunking.length * 640 + 320
    assert features.dtype == np.float32


@pytest.mark.parametrize("num_samples", [100, 50 * 640 - 1, 50 * 640 + 319, 50 * 640 + 320, 90 * 640, 100_000])
@pytest.mark.parametrize("block", [97, 640, 33_000])
def test_how_speech_is_cut_into_blocks_changes_nothing(num_samples: int, block: int) -> None:
    times_s = np.arange(num_samples, dtype=np.float32) / 16_000
    whole = np.concatenate(list(encode_stream([times_s], ClockEncoder(), widest(ClockEncoder()))))
    blocks = np.split(times_s, range(block, num_samples, block))
    np.testing.assert_array_equal(np.concatenate(list(encode_stream(blocks, ClockEncoder(), widest(ClockEncoder())))), whole)


def test_a_chunk_is_encoded_once_half_a_frame_more_has_come() -> None:
    taken = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(400):
            taken += 160
            yield np.zeros(160, dtype=np.float32)

    chunking = Chunking(3, 3, 2, 20)
    for number, _ in zip(range(5), encode_stream(blocks(), ClockEncoder(), chunking), strict=False):
        assert taken == (3 * (number + 1) + 2) * 640 + 320
    assert list(encode_stream([], ClockEncoder(), chunking)) == []
