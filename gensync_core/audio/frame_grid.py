"""From an encoder's own rate to one vector per video frame, for speech of any length with constant memory.

Speech is cut into chunks that overlap; each chunk is encoded, pooled to frames, and its outer frames are dropped, so that
every frame that is kept has been heard with its surroundings. Chunks start on a frame, hence the grid never drifts.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME, num_video_frames
from gensync_core.progress import progress


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


class Chunk(NamedTuple):
    """Frames [start, stop) are encoded, of which [keep_start, keep_stop) are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def encode_on_grid(samples: Float[np.ndarray, "N"], encoder: StateEncoder) -> Float[np.ndarray, "T D"]:
    """One float32 vector per video frame, pooled around the frame's centre; T is `num_video_frames(N)`."""
    num_frames = num_video_frames(len(samples))
    padded = np.pad(samples, (0, max(0, num_frames * SAMPLES_PER_FRAME - len(samples))))
    chunks = list(split(num_frames, encoder.chunk_frames, encoder.margin_frames))
    parts = []
    with progress("audio features", len(chunks)) as bar:
        for chunk in chunks:
            # The last chunk hears also what is left over of half a frame.
            end = len(padded) if chunk.stop == num_frames else chunk.stop * SAMPLES_PER_FRAME
            states = encoder(padded[chunk.start * SAMPLES_PER_FRAME : end])
            pooled = pool_to_frames(states, chunk.stop - chunk.start, encoder.step_s, encoder.offset_s)
            parts.append(pooled[chunk.keep_start - chunk.start : chunk.keep_stop - chunk.start])
            bar.advance()
    return np.concatenate(parts).astype(np.float32)


def split(num_frames: int, chunk_frames: int, margin_frames: int) -> Iterator[Chunk]:
    """Chunks that together keep every frame once, in order. Longer speech never changes the earlier chunks' starts."""
    stride = chunk_frames - 2 * margin_frames
    if stride < 1:
        raise ValueError(f"a chunk of {chunk_frames} frames leaves nothing between two margins of {margin_frames}")
    start = 0
    keep_start = 0
    while keep_start < num_frames:
        stop = min(start + chunk_frames, num_frames)
        keep_stop = num_frames if stop == num_frames else stop - margin_frames
        yield Chunk(start, stop, keep_start, keep_stop)
        start, keep_start = start + stride, keep_stop


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
