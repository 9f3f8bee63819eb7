"""Log-mel spectra, without any weights: Whisper's front end, and the `log-mel` encoder.

Source: Slaney's mel scale and area-normalised filters, as Whisper and librosa use them.
"""

import functools

import numpy as np
import torch
from jaxtyping import Float

from gensync_core.audio.waveform import FPS, SAMPLE_RATE_HZ

NUM_MELS = 80
HOP = 160
_WINDOW = 400
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0

_WHISPER_FLOOR = 1e-10
_WHISPER_RANGE = 8.0  # decades below the loudest value of a chunk
_FLOOR = 1e-6  # some 80 dB below full scale: what is quieter is taken for silence, with no respect to the rest of the clip


def mel_power(samples: Float[np.ndarray, "N"], num_mels: int = NUM_MELS) -> Float[np.ndarray, "S M"]:
    """Mel power at 100 Hz; column s is centred at sample 160 s (reflected at the ends), S = N // 160.

    Audio shorter than half a window (12.5 ms) is padded with silence.
    """
    signal = torch.from_numpy(np.pad(samples, (0, max(0, _WINDOW - len(samples)))))
    spectrum = torch.stft(signal, _WINDOW, HOP, window=torch.hann_window(_WINDOW), return_complex=True)
    power = spectrum[:, :-1].abs() ** 2
    return (torch.from_numpy(mel_filters(num_mels)) @ power).T.numpy()


def whisper_log_mel(samples: Float[np.ndarray, "N"], num_mels: int = NUM_MELS) -> Float[np.ndarray, "M S"]:
    """What Whisper's encoder was trained on: log10, clamped to 8 decades below the chunk's maximum, (x + 4) / 4."""
    decades = np.log10(np.maximum(mel_power(samples, num_mels), _WHISPER_FLOOR))
    return ((np.maximum(decades, decades.max() - _WHISPER_RANGE) + 4.0) / 4.0).T.astype(np.float32)


class LogMelEncoder:
    """80 log-mel bands: the encoder for where no weights are wanted."""

    step_s = HOP / SAMPLE_RATE_HZ
    offset_s = 0.0
    chunk_frames = 30 * FPS
    margin_frames = 1

    def __call__(self, samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "S M"]:
        """(log10 power + 4) / 4 with an absolute floor, so that a frame does not depend on the rest of the clip."""
        return ((np.log10(np.maximum(mel_power(samples), _FLOOR)) + 4.0) / 4.0).astype(np.float32)


@functools.lru_cache(maxsize=4)
def mel_filters(num_mels: int = NUM_MELS) -> Float[np.ndarray, "M F"]:
    """Triangular filters over the 201 bins of a 400-point spectrum, each of unit area."""
    bins_hz = np.linspace(0, SAMPLE_RATE_HZ / 2, _WINDOW // 2 + 1)
    edges_hz = _to_hz(np.linspace(0.0, _to_mel(SAMPLE_RATE_HZ / 2), num_mels + 2))
    left, centre, right = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangles = np.minimum((bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre))
    return (np.maximum(triangles, 0.0) * 2.0 / (right - left)).astype(np.float32)


def _to_mel(hz: float) -> float:
    return (
        hz / _LINEAR_HZ_PER_MEL
        if hz < _BREAK_HZ
        else float(_BREAK_HZ / _LINEAR_HZ_PER_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP)
    )


def _to_hz(mel: np.ndarray) -> np.ndarray:
    break_mel = _BREAK_HZ / _LINEAR_HZ_PER_MEL
    return np.where(mel < break_mel, mel * _LINEAR_HZ_PER_MEL, _BREAK_HZ * np.exp(_LOG_STEP * (mel - break_mel)))
