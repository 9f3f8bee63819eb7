"""Speech with the mouth that says it: synthetic speech, or the mouth guessed from a recording's loudness."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfiltfilt

from gensync_core.artefacts import write_tensors
from gensync_core.audio.waveform import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, load_waveform, num_video_frames, write_waveform
from gensync_core.errors import UsageError
from gensync_core.samples.formant_synthesis import VOICES, synthesize_talk
from gensync_core.samples.phones import Talk, random_talk

_STEP_S = 0.005
_LIP_SMOOTHING_S = 0.032  # co-articulation: lips start before the sound and end after it
_CORNER_SMOOTHING_S = 0.05
_CLOSED_DB, _OPEN_DB = -32.0, -3.0  # loudness of a recording below its 98th percentile
_WIDEST_APERTURE = 0.33


class Speech(NamedTuple):
    """Speech and its mouth.

    Attributes:
        samples: 16 kHz mono, 640 a frame exactly.
        aperture: inner-lip distance over inter-ocular distance, per frame at 25 fps (at the frame's centre), 0 closed.
        width: corners of the mouth per frame, -1 rounded to 1 spread.
    """

    samples: Float[np.ndarray, "N"]
    aperture: Float[np.ndarray, "T"]
    width: Float[np.ndarray, "T"]


def make_speech(out: Path, seconds: float | int = 8.0, seed: int = 0, voice: str = "a") -> Speech:
    """Write synthetic speech to `out` (wav) and its mouth to `<stem>.truth.safetensors` {aperture [T], width [T]}."""
    speech = synthetic_speech(seconds, seed, voice)
    write_waveform(out, speech.samples)
    truth = {"aperture": speech.aperture, "width": speech.width}
    write_tensors(out.with_name(f"{out.stem}.truth.safetensors"), truth, {"fps": FPS, "seed": seed, "voice": voice})
    return speech


def synthetic_speech(seconds: float | int, seed: int, voice: str) -> Speech:
    """Random talk in one of `VOICES`; the same arguments give the same samples.

    Raises:
        UsageError: there is no such voice.
        ValueError: `seconds` is shorter than a frame.
    """
    if voice not in VOICES:
        raise UsageError(f"no voice {voice!r}; there are {', '.join(VOICES)}")
    num_frames = round(seconds * FPS)
    if num_frames < 1:
        raise ValueError(f"seconds is {seconds}, expected at least one frame ({1 / FPS} s)")
    generator = np.random.default_rng([seed, zlib.crc32(voice.encode())])
    duration_s = num_frames / FPS
    talk = random_talk(duration_s, generator, VOICES[voice].rate)
    samples = synthesize_talk(talk, duration_s, VOICES[voice], generator)
    aperture, width = _articulation(talk, num_frames)
    return Speech(samples, aperture, width)


def _articulation(talk: Talk, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets of the phones, smoothed; pressed lips (below 0) stay closed for a while, as they do in m, b and p."""
    times_s = np.arange(0, num_frames / FPS, _STEP_S)
    starts_s = np.array([item.start_s for item in talk.spoken])
    index = np.maximum(np.searchsorted(starts_s, times_s, side="right") - 1, 0)
    aperture = np.array([item.phone.aperture for item in talk.spoken])[index]
    width = np.array([item.phone.width for item in talk.spoken])[index]
    aperture = gaussian_filter1d(aperture, _LIP_SMOOTHING_S / _STEP_S, mode="nearest").clip(min=0.0)
    width = gaussian_filter1d(width, _CORNER_SMOOTHING_S / _STEP_S, mode="nearest")
    centres_s = (np.arange(num_frames) + 0.5) / FPS
    return np.interp(centres_s, times_s, aperture).astype(np.float32), np.interp(centres_s, times_s, width).astype(np.float32)


def recorded_speech(path: Path, seconds: float | int | None = None) -> Speech:
    """A recording (its first `seconds`) with a mouth that opens with its loudness: a stand-in, not a measurement.

    Raises:
        FootageRejected: the file holds no readable sound.
    """
    samples = load_waveform(path)
    num_frames = num_video_frames(len(samples))
    if seconds is not None:
        num_frames = max(1, min(num_frames, round(seconds * FPS)))
    samples = np.pad(samples, (0, max(0, num_frames * SAMPLES_PER_FRAME - len(samples))))[: num_frames * SAMPLES_PER_FRAME]
    loudness = _band_db(samples, 300.0, 3000.0)
    reference = np.percentile(loudness, 98)
    aperture = _WIDEST_APERTURE * ((loudness - reference - _CLOSED_DB) / (_OPEN_DB - _CLOSED_DB)).clip(0, 1) ** 1.5
    balance = gaussian_filter1d(_band_db(samples, 1700.0, 3500.0) - _band_db(samples, 300.0, 1000.0), 1.5, mode="nearest")
    width = np.where(aperture > 0.02, np.tanh((balance - np.median(balance)) / 12.0), 0.0)
    return Speech(
        samples.astype(np.float32),
        gaussian_filter1d(aperture, 0.8, mode="nearest").astype(np.float32),
        gaussian_filter1d(width, 1.2, mode="nearest").astype(np.float32),
    )


def _band_db(samples: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Loudness in a band per frame, dB."""
    sections = butter(2, (low_hz, high_hz), btype="bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    power = sosfiltfilt(sections, np.concatenate([samples, np.zeros(64)]))[: len(samples)] ** 2
    return 10 * np.log10(power.reshape(-1, SAMPLES_PER_FRAME).mean(axis=1) + 1e-8)
