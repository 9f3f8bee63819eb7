"""Copies of a voice that sound like other people: played faster, other formants, loudness and noise (own choice).

Speed shifts pitch, formants and tempo together; formants are then shifted alone. Features of a copy are put back onto
the frames of the original, `on_original_frames`, so that they go with its picture. Shapes: N samples, T frames, D feature size.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal import resample_poly
from torch import Tensor

_WINDOW, _HOP = 1024, 256
_LIFTER = 40  # of the cepstrum's 1024 coefficients: the envelope, without the harmonics of voices below 400 Hz
_MOST_GAIN = 3.0  # natural logarithm: where an envelope is nearly zero it would be raised without end


class Alteration(NamedTuple):
    """What makes one copy.

    Attributes:
        speed_percent: of the original's; 110 is a tenth faster and higher.
        formants: factor on the frequencies of the spectral envelope.
        gain_db: of loudness.
        noise_db: noise below the speech.
        whiteness: of the noise: 1 white, 0 low-passed.
    """

    speed_percent: int
    formants: float
    gain_db: float
    noise_db: float
    whiteness: float


def draw_alteration(rng: np.random.Generator) -> Alteration:
    """Speed and formants within a sixth of the original's, -10 to 6 dB of gain, noise 12 to 40 dB below the speech."""
    return Alteration(
        int(rng.integers(86, 117)),
        float(np.exp(rng.uniform(-0.16, 0.16))),
        rng.uniform(-10, 6),
        rng.uniform(12, 40),
        rng.uniform(0, 1),
    )


def altered(samples: Float[np.ndarray, "N"], alteration: Alteration, rng: np.random.Generator) -> Float[np.ndarray, "_"]:
    """The copy: 100 / `speed_percent` times as long, 16 kHz."""
    heard = resample_poly(samples, 100, alteration.speed_percent).astype(np.float32)
    heard = shift_formants(heard, alteration.formants) * 10 ** (alteration.gain_db / 20)
    noise = rng.standard_normal(len(heard))
    noise = alteration.whiteness * noise + (1 - alteration.whiteness) * np.convolve(noise, np.full(16, 0.25), mode="same")
    noise *= heard.std() * 10 ** (-alteration.noise_db / 20) / max(float(noise.std()), 1e-9)
    return np.clip(heard + noise, -1, 1).astype(np.float32)


def shift_formants(samples: Float[np.ndarray, "N"], factor: float) -> Float[np.ndarray, "N"]:
    """The same pitch and tempo; the envelope that stood at f then stands at `factor` f. Source: cepstral liftering."""
    window = torch.hann_window(_WINDOW)
    spectrum = torch.stft(torch.from_numpy(samples), _WINDOW, _HOP, window=window, return_complex=True)
    cepstrum = torch.fft.irfft(spectrum.abs().clamp_min(1e-7).log(), n=_WINDOW, dim=0)
    cepstrum[_LIFTER : _WINDOW - _LIFTER + 1] = 0
    envelope = torch.fft.rfft(cepstrum, dim=0).real
    gain = (_stretched(envelope, factor) - envelope).clamp(-_MOST_GAIN, _MOST_GAIN).exp()
    return torch.istft(spectrum * gain, _WINDOW, _HOP, window=window, length=len(samples)).numpy()


def _stretched(envelope: Float[Tensor, "F S"], factor: float) -> Float[Tensor, "F S"]:
    last = len(envelope) - 1
    source = (torch.arange(last + 1) / factor).clamp_max(last)
    below = source.floor().long().clamp_max(last - 1)
    share = (source - below)[:, None]
    return envelope[below] * (1 - share) + envelope[below + 1] * share


def on_original_frames(
    features: Float[np.ndarray, "_ D"], speed_percent: int, num_frames: int
) -> Float[np.ndarray, "{num_frames} D"]:
    """Features of a copy, read where the original's frames are heard in it."""
    centres = (np.arange(num_frames) + 0.5) * 100 / speed_percent - 0.5
    centres = np.clip(centres, 0, len(features) - 1)
    below = np.clip(np.floor(centres).astype(int), 0, max(len(features) - 2, 0))
    share = (centres - below).astype(np.float32)[:, None]
    return features[below] * (1 - share) + features[np.minimum(below + 1, len(features) - 1)] * share
