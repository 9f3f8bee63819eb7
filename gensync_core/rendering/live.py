"""Frames while somebody speaks: pieces of sound in, pictures out, each as soon as its sound has been heard."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, UInt8

from gensync_core.audio.features import Listening, SpeechEncoder
from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME
from gensync_core.rendering.code_stream import reach
from gensync_core.rendering.synthesis import Avatar


def stream_frames(
    avatar: Avatar,
    audio_chunks: Iterable[Float[np.ndarray, "_"]],
    encoder: SpeechEncoder,
    listening: Listening | None = None,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """RGB frames, 25 a second of sound, of a speaker who says what comes in.

    Takes no more of `audio_chunks` than the next frame needs (see `samples_needed`); after the last chunk come the frames that
    were still waiting, so that there are as many as of the same speech in a file. Closing the generator ends everything.

    Args:
        avatar: in full mode, or in fast mode after `Avatar.quicken`.
        audio_chunks: 16 kHz mono samples in -1..1, in pieces of any length.
        encoder: the one whose features the avatar was trained on.
        listening: how far it listens ahead, and how often; None: the defaults.
    """
    for frame in avatar.stream(encoder.listen(audio_chunks, listening or Listening())):
        yield frame.image


def samples_needed(avatar: Avatar, encoder: SpeechEncoder, listening: Listening, frame: int) -> int:
    """How many samples must have come before `stream_frames` yields a frame, if the speech goes on."""
    chunking = encoder.chunking(listening)
    heard = frame + reach(avatar.network.params).future
    stop = chunking.first + max(0, -(-(heard + 1 - chunking.first) // chunking.hop)) * chunking.hop
    return (stop + chunking.look_ahead) * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2


def latency_s(avatar: Avatar, encoder: SpeechEncoder, listening: Listening) -> float:
    """Longest time between the end of a frame's own sound and the moment when the sound that it needs is there.

    Window of the network + look-ahead of the speech encoder + the rest of a hop + half a frame; computing comes on top.
    """
    chunking = encoder.chunking(listening)
    frames = reach(avatar.network.params).future + chunking.look_ahead + chunking.hop - 1 + 0.5
    return frames / FPS
