"""The sound of footage a block at a time, on the clock of its pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from gensync_core.errors import FootageRejected
from gensync_core.media import ffmpeg_command
from gensync_core.media.clip_cutting import SAMPLE_RATE_HZ, Span, sound_within
from gensync_core.media.ffmpeg_command import FfmpegFailed, Patience
from gensync_core.media.probe import SoundFormat

SPEECH_FORMAT = SoundFormat(SAMPLE_RATE_HZ, 1)

_WAIT_S = 120.0  # all sound before a span is decoded too


def iter_sound(
    path: Path, span: Span, sound_format: SoundFormat = SPEECH_FORMAT, *, block_samples: int = SAMPLE_RATE_HZ
) -> Iterator[Int16[np.ndarray, "N C"]]:
    """Samples of the first sound track within a span, in constant memory; louder ones than full scale are cut off at it.

    Holes in the sound are silence, so that sample i is heard `i / rate` after the span's beginning. All blocks but the last
    have `block_samples` samples.

    Args:
        path: any container of a known kind.
        span: on the footage's own clock; the sound may end before it does.
        sound_format: what to convert to; channels are mixed to one as at ingestion, or kept as they are.
        block_samples: samples of a channel in a block.

    Raises:
        FootageRejected: there is no such file, it holds no sound, or decoding fails.
    """
    rate_hz, num_channels = sound_format
    stream = sound_within(path, span, rate_hz).filter("asetnsamples", n=block_samples, p=1)
    output = ffmpeg_command.to_pipe(stream, format="s16le", ac=num_channels, ar=rate_hz)
    block = np.empty((block_samples, num_channels), dtype="<i2")
    num_left = round((span.end_s - span.start_s) * rate_hz)

    def next_block() -> memoryview:
        nonlocal block
        block = np.empty((block_samples, num_channels), dtype="<i2")
        return block.reshape(-1).data.cast("B")

    try:
        for _ in ffmpeg_command.read_blocks(output, next_block, Patience(block_samples / rate_hz, _WAIT_S)):
            if num_left <= 0:
                return  # times that run backwards can make hours of sound of a short span
            yield block[:num_left]
            num_left -= block_samples
    except FfmpegFailed as error:
        raise FootageRejected(f"{path}: its sound cannot be decoded ({error}); convert it to WAV and try again") from error
