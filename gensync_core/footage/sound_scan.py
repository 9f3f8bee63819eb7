"""What is heard in footage, measured in one go: speech, levels, overdrive, held tones."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from gensync_core.audio.torch_threads import fixed_threads
from gensync_core.footage.tone_steadiness import ToneSteadiness
from gensync_core.footage.voice_activity import CHUNK_S, CHUNK_SAMPLES, VoiceActivity
from gensync_core.media.clip_cutting import Span, shared_span
from gensync_core.media.probe import Probe, SoundFormat, sound_format
from gensync_core.media.sound import iter_sound

__all__ = ["SILENCE_DBFS", "SoundFacts", "scan_sound"]

SILENCE_DBFS = -100.0  # what digital silence is said to be

_FULL_SCALE = 32768
_OVERDRIVEN = round(0.98 * _FULL_SCALE)
_RUN = 2  # samples
_CHUNKS_PER_BLOCK = 32
_CHUNKS_PER_SECOND = round(1 / CHUNK_S)
_PAUSE_MARGIN_S = 0.1
_MIN_PAUSES_S = 0.25
_QUIETEST = 5  # percent
_HIGHEST_FORMAT = SoundFormat(192_000, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundFacts:
    """What is heard while there are pictures. Times are s from the first picture; levels are root mean squares in dBFS.

    Attributes:
        start_s: of the sound that was looked at.
        seconds: length of the sound that was looked at.
        speech: begin and end of each stretch of speech, in order.
        loudest_dbfs: of the loudest second, -100 for digital silence.
        speech_dbfs: of all speech; None: there is none.
        background_dbfs: median over the pauses (in chunks of 32 ms, 0.1 s away from speech); where nobody pauses, the
            quietest twentieth.
        overdriven: for each second from `start_s`, share of samples at full scale in runs of 2 or more, in the channel that
            has most, before channels are mixed.
        steadiness: how much like music each 2.56 s is, every 1.28 s from `start_s`: see `footage.tone_steadiness`.
    """

    start_s: float
    seconds: float
    speech: tuple[tuple[float, float], ...]
    loudest_dbfs: float
    speech_dbfs: float | None
    background_dbfs: float
    overdriven: tuple[float, ...]
    steadiness: tuple[float, ...]

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return sum((end_s - start_s for start_s, end_s in self.speech), start=0.0)

    @property
    def speech_share(self) -> float:
        """Seconds of speech over seconds of sound."""
        return self.speech_s / self.seconds if self.seconds else 0.0


def scan_sound(path: Path, found: Probe) -> SoundFacts:
    """Hear the part of the footage that has pictures (all of it where there are none), in constant memory.

    The same file gives the same facts, whatever number of threads torch is set to.

    Args:
        path: footage with sound.
        found: of the same file.

    Raises:
        FootageRejected: there is no sound, or it cannot be decoded.
    """
    span = shared_span(found) if found.has_video else Span(found.audio_start_s, found.audio_end_s)
    start_s = span.start_s - found.video_start_s if found.has_video else 0.0
    with fixed_threads(1):
        voice, tones = VoiceActivity(), ToneSteadiness()
        powers, num_samples = [], 0
        for block in iter_sound(path, span, block_samples=_CHUNKS_PER_BLOCK * CHUNK_SAMPLES):
            num_samples += len(block)
            samples = np.pad(block[:, 0] / np.float32(_FULL_SCALE), (0, -len(block) % CHUNK_SAMPLES))
            voice.hear(samples)
            tones.hear(samples)
            powers.append(samples.reshape(-1, CHUNK_SAMPLES).var(axis=1))
        speech = voice.spans()
    power = np.concatenate(powers) if powers else np.zeros(1)
    spoken, pauses = _spoken(speech, len(power)), ~_spoken(speech, len(power), _PAUSE_MARGIN_S)
    return SoundFacts(
        start_s=round(start_s, 3),
        seconds=num_samples * CHUNK_S / CHUNK_SAMPLES,
        speech=tuple((round(start_s + begin_s, 3), round(start_s + end_s, 3)) for begin_s, end_s in speech),
        loudest_dbfs=max(_dbfs(power[at : at + _CHUNKS_PER_SECOND].mean()) for at in range(0, len(power), _CHUNKS_PER_SECOND)),
        speech_dbfs=_dbfs(power[spoken].mean()) if spoken.any() else None,
        background_dbfs=_dbfs(
            np.median(power[pauses]) if pauses.sum() * CHUNK_S >= _MIN_PAUSES_S else np.percentile(power, _QUIETEST)
        ),
        overdriven=tuple(_overdriven(path, span)),
        steadiness=tuple(tones.steadiness),
    )


def _spoken(speech: list[tuple[float, float]], num_chunks: int, margin_s: float = 0.0) -> Bool[np.ndarray, "C"]:
    """Chunks whose middle lies in speech or within a margin of it."""
    middle_s = (np.arange(num_chunks) + 0.5) * CHUNK_S
    spoken = np.zeros(num_chunks, dtype=bool)
    for begin_s, end_s in speech:
        first, last = np.searchsorted(middle_s, (begin_s - margin_s, end_s + margin_s))
        spoken[first:last] = True
    return spoken


def _dbfs(power: float | np.floating) -> float:
    return max(10 * float(np.log10(max(float(power), 1e-20))), SILENCE_DBFS)


def _overdriven(path: Path, span: Span) -> Iterator[float]:
    """Share of overdriven samples in each second, as the sound is stored: mixing and resampling would hide them."""
    stored = sound_format(path)
    kept = SoundFormat(min(stored.rate_hz, _HIGHEST_FORMAT.rate_hz), min(stored.num_channels, _HIGHEST_FORMAT.num_channels))
    for block in iter_sound(path, span, kept, block_samples=kept.rate_hz):
        at_full_scale = np.abs(block.astype(np.int32)) >= _OVERDRIVEN
        yield max(_num_in_runs(channel) for channel in at_full_scale.T) / kept.rate_hz


def _num_in_runs(at_full_scale: Bool[np.ndarray, "N"]) -> int:
    edges = np.flatnonzero(np.diff(at_full_scale, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= _RUN].sum())
