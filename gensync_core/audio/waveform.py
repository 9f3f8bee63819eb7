"""Speech as 16 kHz mono samples, and how many video frames it fills."""

import math
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

_WAV_SUFFIXES = (".wav", ".flac")


def load_waveform(path: Path) -> Float[np.ndarray, "N"]:
    """Samples of an audio or video file: 16 kHz, mono (channels averaged), float32 in -1..1.

    Raises:
        FootageRejected: the file is missing, empty, or holds no readable sound.
    """
    if path.suffix.lower() in _WAV_SUFFIXES:
        samples = _read_wav(path)
    else:
        from gensync_core.media.video import read_audio

        samples = read_audio(path, sample_rate=SAMPLE_RATE_HZ)
    if len(samples) == 0:
        raise FootageRejected(f"{path}: holds no sound; give a file with at least one frame (0.04 s) of speech")
    if not np.isfinite(samples).all():
        raise FootageRejected(f"{path}: holds samples that are not numbers; export it again as 16 or 24 bit PCM")
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def _read_wav(path: Path) -> np.ndarray:
    try:
        channels, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise FootageRejected(f"{path}: cannot be read as sound ({error})") from error
    samples = channels.mean(axis=1)
    if rate_hz == SAMPLE_RATE_HZ or len(samples) == 0:
        return samples
    divisor = math.gcd(rate_hz, SAMPLE_RATE_HZ)
    from scipy.signal import resample_poly  # 2 s of imports that most stages never need

    return resample_poly(samples, SAMPLE_RATE_HZ // divisor, rate_hz // divisor)


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
