"""From an encoder's own rate to one vector per video frame, for speech of any length with constant memory.

Speech is cut into chunks that overlap; each chunk is encoded, pooled to frames, and its outer frames are dropped, so that
every frame that is kept has been heard with its surroundings. Chunks start on a frame, hence the grid never drifts.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME, num_video_frames


@runtime_checkable
class StateEncoder(Protocol):
    """Turns samples of one chunk into states at a constant rate.

    Attributes:
        step_s: time between two states.
        offset_s: time at which state 0 is centred.
        chunk_frames: longest chunk, in video frames.
        margin_frames: frames at either end of a chunk that are not kept where there is another chunk.
    """

    step_s: float
    offset_s: float
    chunk_frames: int
    margin_frames: int

    def __call__(self, samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "S D"]:
        """States of a chunk of 16 kHz samples."""
        ...


class Chunking(NamedTuple):
    """How speech is cut, in video frames.

    Attributes:
        first: frames that the first chunk keeps.
        hop: frames that every later one keeps.
        look_ahead: frames that a chunk hears beyond those it keeps.
        length: most frames that a chunk hears.
    """

    first: int
    hop: int
    look_ahead: int
    length: int


class Chunk(NamedTuple):
    """Frames [start, stop) are encoded, of which [keep_start, keep_stop) are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def widest(encoder: StateEncoder) -> Chunking:
    """Chunks as long as the encoder takes them, its margin dropped on both sides: for speech that is there as a whole.

    Raises:
        ValueError: the margins leave nothing between them.
    """
    length, margin = encoder.chunk_frames, encoder.margin_frames
    if length <= 2 * margin:
        raise ValueError(f"a chunk of {length} frames leaves nothing between two margins of {margin}")
    return Chunking(length - margin, length - 2 * margin, margin, length)


def plan(chunking: Chunking) -> Iterator[Chunk]:
    """Chunks that together keep every frame once, in order, without end."""
    keep_start, keep_stop = 0, chunking.first
    while True:
        stop = keep_stop + chunking.look_ahead
        yield Chunk(max(0, stop - chunking.length), stop, keep_start, keep_stop)
        keep_start, keep_stop = keep_stop, keep_stop + chunking.hop


def encode_stream(
    blocks: Iterable[Float[np.ndarray, "_"]], encoder: StateEncoder, chunking: Chunking
) -> Iterator[Float[np.ndarray, "F D"]]:
    """One float32 vector per video frame, pooled around the frame's centre, a chunk's frames at a time.

    A chunk is encoded as soon as half a frame more than it hears has come: then it is not the last one. All chunks together
    give `num_video_frames` vectors. How the samples are cut into blocks changes nothing; a chunk's samples are held at most.
    """
    speech = _Speech(iter(blocks))
    for chunk in plan(chunking):
        speech.forget(chunk.start * SAMPLES_PER_FRAME)
        if speech.reaches(chunk.stop * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2):
            yield _encode_chunk(speech.upto(chunk.stop * SAMPLES_PER_FRAME), encoder, chunk)
            continue
        num_frames = num_video_frames(speech.end) if speech.end else 0
        if chunk.keep_start < num_frames:
            # The last chunk hears also what is left over of half a frame.
            rest = speech.upto(speech.end)
            missing = max(0, (num_frames - chunk.start) * SAMPLES_PER_FRAME - len(rest))
            last = Chunk(chunk.start, num_frames, chunk.keep_start, num_frames)
            yield _encode_chunk(np.pad(rest, (0, missing)), encoder, last)
        return


def _encode_chunk(samples: np.ndarray, encoder: StateEncoder, chunk: Chunk) -> np.ndarray:
    pooled = pool_to_frames(encoder(samples), chunk.stop - chunk.start, encoder.step_s, encoder.offset_s)
    return pooled[chunk.keep_start - chunk.start : chunk.keep_stop - chunk.start]


class _Speech:
    """The samples that are still needed of all that has come; positions count from the beginning of the speech."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._parts: list[np.ndarray] = []
        self._start = self.end = 0

    def reaches(self, position: int) -> bool:
        """Take blocks until `position` samples have come; false where there are fewer."""
        while self.end < position:
            block = next(self._blocks, None)
            if block is None:
                return False
            self._parts.append(block)
            self.end += len(block)
        return True

    def upto(self, position: int) -> np.ndarray:
        """Samples from the first that is not forgotten."""
        self._parts = [np.concatenate(self._parts)] if len(self._parts) != 1 else self._parts
        return self._parts[0][: position - self._start]

    def forget(self, position: int) -> None:
        """Samples before `position`, all of which have come, are not needed any more."""
        if position > self._start:
            # A copy, or the samples before it would stay in memory.
            self._parts = [self.upto(self.end)[position - self._start :].copy()]
            self._start = position


def pool_to_frames(
    states: Float[np.ndarray, "S D"], num_frames: int, step_s: float, offset_s: float
) -> Float[np.ndarray, "{num_frames} D"]:
    """Averages states around each frame's centre, (i + 0.5) / 25 s, with a triangle that ends at the neighbours' centres.

    At 50 states a second from time 0 that is 1/4, 1/2, 1/4 of states 2i, 2i+1 and 2i+2: state 2i+1 lies on the centre.
    """
    radius_s = 1.0 / FPS
    centres_s = (np.arange(num_frames) + 0.5) / FPS
    first = np.floor((centres_s - radius_s - offset_s) / step_s).astype(np.int64)
    index = first[:, None] + np.arange(int(np.ceil(2 * radius_s / step_s)) + 2)
    weight = np.maximum(0.0, 1.0 - np.abs(offset_s + index * step_s - centres_s[:, None]) / radius_s)
    inside = (index >= 0) & (index < len(states))
    nearest = np.clip(np.rint((centres_s - offset_s) / step_s).astype(np.int64), 0, len(states) - 1)
    weight = np.where(inside, weight, 0.0)
    total = weight.sum(axis=1)
    weight = weight / np.where(total > 0, total, 1.0)[:, None]
    pooled = np.einsum("fk,fkd->fd", weight, states[np.clip(index, 0, len(states) - 1)])
    # A state sequence that ends before the last frame's triangle begins: repeat its last state.
    pooled[total == 0] = states[nearest[total == 0]]
    return pooled.astype(np.float32)
