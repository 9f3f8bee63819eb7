"""A formant synthesiser: glottal pulses and noise through a cascade of resonators.

Source: Klatt's cascade synthesiser (1980) and Rosenberg's glottal pulse (1971), cut down.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from gensync_core.audio.waveform import SAMPLE_RATE_HZ
from gensync_core.samples.phones import Talk

_BLOCK = 80  # samples (5 ms): parameters are constant within
_BLOCK_S = _BLOCK / SAMPLE_RATE_HZ
_BANDWIDTHS_HZ = (70.0, 100.0, 140.0, 250.0)
_FOURTH_FORMANT_HZ = 3500.0
_FORMANT_SMOOTHING_S = 0.018
_LOUDNESS_SMOOTHING_S = 0.007
_PITCH_SMOOTHING_S = 0.05
_HISS_BANDWIDTH_HZ = 1800.0
_OPENING, _CLOSING = 0.4, 0.16  # shares of a glottal cycle
_PEAK = 0.5
_NOISE_FLOOR = 2e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """Who speaks.

    Attributes:
        pitch_hz: middle of the pitch contour.
        tract_scale: factor on all resonances; above 1 for a shorter vocal tract.
        rate: factor on the speed of speech.
        breath: loudness of breath noise in the voice.
    """

    pitch_hz: float
    tract_scale: float
    rate: float
    breath: float


VOICES = {
    "a": Voice(pitch_hz=205.0, tract_scale=1.12, rate=1.0, breath=0.02),
    "b": Voice(pitch_hz=128.0, tract_scale=0.97, rate=0.92, breath=0.035),
}


def synthesize_talk(talk: Talk, seconds: float, voice: Voice, generator: np.random.Generator) -> Float[np.ndarray, "N"]:
    """16 kHz samples of what is said in the first `seconds`, float32, peak 0.5."""
    num_blocks = int(np.ceil(seconds / _BLOCK_S))
    spoken = _phone_of_each_block(talk, num_blocks)
    phones = [item.phone for item in spoken]
    formants_hz = np.array([(*phone.formants_hz, _FOURTH_FORMANT_HZ) for phone in phones]) * voice.tract_scale
    formants_hz = gaussian_filter1d(formants_hz, _FORMANT_SMOOTHING_S / _BLOCK_S, axis=0, mode="nearest")
    voicing = _smooth([phone.voicing for phone in phones], _LOUDNESS_SMOOTHING_S)
    hiss = _smooth([phone.hiss for phone in phones], _LOUDNESS_SMOOTHING_S)
    hiss_hz = np.array([phone.hiss_hz for phone in phones]) * min(voice.tract_scale, 1.1)
    contour = [0.10 * item.accent - 0.18 * (item.phrase_share - 0.5) for item in spoken]
    pitch_hz = voice.pitch_hz * np.exp(_smooth(contour, _PITCH_SMOOTHING_S))

    noise = generator.standard_normal(num_blocks * _BLOCK)
    pulses = _glottal_flow(np.repeat(pitch_hz, _BLOCK), generator) + voice.breath * noise
    voiced = _cascade(pulses * _per_sample(voicing), formants_hz)
    friction = _resonate(noise * _per_sample(hiss), hiss_hz, np.full(num_blocks, _HISS_BANDWIDTH_HZ))
    sound = voiced / np.abs(voiced).max() + 0.35 * friction / max(np.abs(friction).max(), 1e-9)
    sound = sound + _NOISE_FLOOR * generator.standard_normal(len(sound))
    return (_PEAK * sound / np.abs(sound).max())[: round(seconds * SAMPLE_RATE_HZ)].astype(np.float32)


def _phone_of_each_block(talk: Talk, num_blocks: int) -> list:
    starts_s = np.array([item.start_s for item in talk.spoken])
    centres_s = (np.arange(num_blocks) + 0.5) * _BLOCK_S
    return [talk.spoken[index] for index in np.maximum(np.searchsorted(starts_s, centres_s, side="right") - 1, 0)]


def _smooth(values: list[float], width_s: float) -> np.ndarray:
    return gaussian_filter1d(np.array(values, dtype=np.float64), width_s / _BLOCK_S, mode="nearest")


def _per_sample(values: np.ndarray) -> np.ndarray:
    """Linear between block centres, so that loudness has no steps."""
    samples = np.arange(len(values) * _BLOCK)
    return np.interp(samples, np.arange(len(values)) * _BLOCK + _BLOCK / 2, values)


def _glottal_flow(pitch_hz: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Derivative of Rosenberg pulses with a little jitter; the radiation at the lips is the derivative."""
    jitter = gaussian_filter1d(generator.standard_normal(len(pitch_hz)), 200.0) * 0.3
    phase = np.cumsum(pitch_hz * (1 + jitter) / SAMPLE_RATE_HZ) % 1.0
    rising = 0.5 * (1 - np.cos(np.pi * phase / _OPENING))
    falling = np.cos(0.5 * np.pi * (phase - _OPENING) / _CLOSING)
    flow = np.where(phase < _OPENING, rising, np.where(phase < _OPENING + _CLOSING, falling, 0.0))
    return np.diff(flow, prepend=flow[:1])


def _cascade(signal: np.ndarray, formants_hz: np.ndarray) -> np.ndarray:
    for index, bandwidth_hz in enumerate(_BANDWIDTHS_HZ):
        signal = _resonate(signal, formants_hz[:, index], np.full(len(formants_hz), bandwidth_hz))
    return signal


def _resonate(signal: np.ndarray, centre_hz: np.ndarray, bandwidth_hz: np.ndarray) -> np.ndarray:
    """A two-pole resonator of unit gain at 0 Hz whose centre moves from block to block; its state is carried on."""
    radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ)
    turn = 2 * np.cos(2 * np.pi * np.minimum(centre_hz, 0.47 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    state = np.zeros(2)
    result = np.empty_like(signal)
    for block in range(len(centre_hz)):
        poles = np.array([1.0, -radius[block] * turn[block], radius[block] ** 2])
        piece = slice(block * _BLOCK, (block + 1) * _BLOCK)
        result[piece], state = lfilter([poles.sum()], poles, signal[piece], zi=state)
    return result
