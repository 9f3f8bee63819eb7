from collections.abc import Iterator

import made_up_avatar
import numpy as np
import pytest

from gensync_core.audio.features import Listening, SpeechEncoder
from gensync_core.rendering.live import latency_s, samples_needed, stream_frames

CHUNK = 100  # samples


class Microphone:
    """Hands out speech in small chunks and knows how much has been taken."""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples, self.taken, self.closed = samples, 0, False

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            while self.taken < len(self.samples):
                chunk = self.samples[self.taken : self.taken + CHUNK]
                self.taken += len(chunk)
                yield chunk
        finally:
            self.closed = True


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return SpeechEncoder(made_up_avatar.params().audio)


@pytest.mark.parametrize("listening", [Listening(), Listening(context_frames=20, look_ahead_frames=0, hop_frames=1)])
def test_a_frame_comes_when_its_sound_has_been_heard_and_no_later(encoder, listening):
    avatar, microphone = made_up_avatar.avatar(), Microphone(made_up_avatar.speech(2.0))
    waits_s, count = [], 0
    for frame, _ in enumerate(stream_frames(avatar, iter(microphone), encoder, listening)):
        count += 1
        needed = samples_needed(avatar, encoder, listening, frame)
        if needed <= len(microphone.samples):
            assert needed <= microphone.taken < needed + CHUNK
            waits_s.append(microphone.taken / 16_000 - (frame + 1) / 25)
    assert count == 50
    longest_s = latency_s(avatar, encoder, listening)
    assert max(waits_s) == pytest.approx(longest_s, abs=CHUNK / 16_000 + 1e-6)


def test_live_frames_equal_those_of_the_file(encoder):
    """Log-mel hears one frame around a frame; what a long look-ahead is worth to Whisper is in docs/model.md."""
    avatar, samples = made_up_avatar.avatar(), made_up_avatar.speech(3.3)
    offline = [frame.image for frame in avatar.stream(encoder.stream([samples]))]
    live = list(stream_frames(avatar, iter(Microphone(samples)), encoder))
    assert len(live) == len(offline) == 83
    for one, other in zip(offline, live, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_closing_ends_everything(encoder):
    microphone = Microphone(made_up_avatar.speech(4.0))
    frames = stream_frames(made_up_avatar.avatar(), iter(microphone), encoder)
    next(frames)
    frames.close()
    assert microphone.closed
    with pytest.raises(StopIteration):
        next(frames)


def test_no_sound_gives_no_frame(encoder):
    assert list(stream_frames(made_up_avatar.avatar(), [], encoder)) == []


def test_listening_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="hop_frames"):
        Listening(hop_frames=0)
    with pytest.raises(ValueError, match="context_frames"):
        Listening(context_frames=10, look_ahead_frames=6, hop_frames=5)
