"""Speech as 16 kHz mono samples, and how many video frames it fills."""

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
from jaxtyping import Float

from gensync_core.artefacts import atomic_path
from gensync_core.errors import FootageRejected

SAMPLE_RATE_HZ: Final = 16_000
FPS: Final = 25
SAMPLES_PER_FRAME: Final = SAMPLE_RATE_HZ // FPS

# A file of some hundred kilobytes can say that it holds days of sound, a thousand channels, or 2^31 samples a second.
MAX_SPEECH_S: Final = 4 * 3600.0
_MAX_CHANNELS = 16
_RATES_HZ = range(1_000, 192_001)

_WAV_SUFFIXES = (".wav", ".flac")
_BLOCK_S = 10


def load_waveform(path: Path) -> Float[np.ndarray, "N"]:
    """Samples of an audio or video file: 16 kHz, mono (channels averaged), float32 in -1..1.

    Raises:
        FootageRejected: the file is missing, empty, or holds no readable sound.
    """
    return np.concatenate(list(iter_waveform(path)))


def iter_waveform(path: Path) -> Iterator[Float[np.ndarray, "N"]]:
    """The same samples a piece at a time, in constant memory.

    Raises:
        FootageRejected: as `load_waveform`, once the samples before the fault have been handed out.
    """
    num_samples = 0
    for samples in _iter_wav(path, path) if path.suffix.lower() in _WAV_SUFFIXES else _iter_other(path):
        if not np.isfinite(samples).all():
            raise FootageRejected(f"{path}: holds samples that are not numbers; export it again as 16 or 24 bit PCM")
        num_samples += len(samples)
        if num_samples > MAX_SPEECH_S * SAMPLE_RATE_HZ:
            raise FootageRejected(_too_long(path))
        yield np.clip(samples, -1.0, 1.0).astype(np.float32)
    if num_samples == 0:
        raise FootageRejected(f"{path}: holds no sound; give a file with at least one frame (0.04 s) of speech")


def _iter_other(path: Path) -> Iterator[np.ndarray]:
    from gensync_core.media.video import convert_audio

    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "sound.wav"
        convert_audio(path, wav, SAMPLE_RATE_HZ, MAX_SPEECH_S + 1)
        yield from _iter_wav(wav, path)


def _iter_wav(wav: Path, path: Path) -> Iterator[np.ndarray]:
    """Blocks of a WAV or FLAC file that is, or was made from, the one at `path`, which messages name."""
    if not wav.is_file():
        raise FootageRejected(f"{path}: no such file")
    try:
        # By descriptor: given a name, libsndfile looks for files beside it as well.
        with wav.open("rb") as opened, soundfile.SoundFile(opened.fileno(), closefd=False) as file:
            _check_format(path, file)
            if file.samplerate == SAMPLE_RATE_HZ:
                for block in file.blocks(_BLOCK_S * SAMPLE_RATE_HZ, dtype="float32", always_2d=True):
                    yield block.mean(axis=1)
            else:
                yield from _iter_resampled(file)
    except (OSError, soundfile.SoundFileError) as error:
        reason = getattr(error, "error_string", error)  # without the descriptor's number
        raise FootageRejected(f"{path}: cannot be read as sound ({reason})") from error


def _check_format(path: Path, file: soundfile.SoundFile) -> None:
    if file.channels > _MAX_CHANNELS or file.samplerate not in _RATES_HZ:
        raise FootageRejected(
            f"{path}: has {file.channels} channels of {file.samplerate} samples a second; "
            f"give sound of at most {_MAX_CHANNELS} channels and {_RATES_HZ[0]} to {_RATES_HZ[-1]} Hz"
        )
    if file.frames > MAX_SPEECH_S * file.samplerate:
        raise FootageRejected(_too_long(path))


def _too_long(path: Path) -> str:
    return f"{path}: lasts more than {MAX_SPEECH_S / 3600:g} hours; give it in parts"


def _iter_resampled(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Blocks of another rate as if they had been resampled together: each is read with what the filter reaches around it."""
    from scipy.signal import resample_poly  # 2 s of imports that most stages never need

    divisor = math.gcd(file.samplerate, SAMPLE_RATE_HZ)
    up, down = SAMPLE_RATE_HZ // divisor, file.samplerate // divisor
    # The filter of resample_poly ends ten samples away, at the lower of both rates. Blocks start where samples coincide.
    margin = down * -(-(10 * max(up, down) // up + 1) // down)
    size = down * -(-_BLOCK_S * file.samplerate // down)
    for start in range(0, file.frames, size):
        first = max(0, start - margin)
        file.seek(first)
        heard = file.read(start + size + margin - first, dtype="float32", always_2d=True).mean(axis=1)
        skipped = (start - first) * up // down
        is_last = start + size >= file.frames
        yield resample_poly(heard, up, down)[skipped : None if is_last else skipped + size * up // down]


def store_waveform(path: Path, blocks: Iterable[Float[np.ndarray, "_"]]) -> int:
    """Write 16 kHz mono float samples of any number as they come; returns how many. `path` ends in `.wav`."""
    num_samples = 0
    # RF64: a WAV that may be larger than 4 GiB.
    with atomic_path(path) as temporary, soundfile.SoundFile(temporary, "w", SAMPLE_RATE_HZ, 1, "FLOAT", format="RF64") as file:
        for block in blocks:
            file.write(block)
            num_samples += len(block)
    return num_samples


def write_waveform(path: Path, samples: Float[np.ndarray, "N"]) -> None:
    """Write 16 kHz mono PCM16 whole; `path` ends in `.wav`. The same samples give the same bytes."""
    file_format: dict[str, Any] = {"subtype": "PCM_16", "format": "WAV"}
    with atomic_path(path) as temporary:
        soundfile.write(temporary, np.clip(samples, -1.0, 1.0), SAMPLE_RATE_HZ, **file_format)


def num_video_frames(num_samples: int, fps: int = FPS) -> int:
    """How many video frames go with so many 16 kHz samples: the nearest whole number, at least 1."""
    return max(1, math.floor(num_samples * fps / SAMPLE_RATE_HZ + 0.5))


def silence(num_samples: int) -> Float[np.ndarray, "N"]:
    """Digital silence, 16 kHz."""
    return np.zeros(num_samples, dtype=np.float32)
