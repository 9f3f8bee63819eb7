"""Calm, smooth and repeatable movement of the head, and blinks.

Source: own choice; sizes as in footage of news readers.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from gensync_core.audio.waveform import FPS

_YAW_PITCH_ROLL_DEG = (3.2, 2.2, 1.5)  # standard deviations
_SHIFT = (0.05, 0.025, 0.05)  # x, y, z in decimetre
_SLOWNESS_S = 0.55
_NOD_DEG = 1.0
_BLINK_GAP_S = (1.6, 4.2)
_BLINK_FRAMES = (0.0, 0.45, 0.95, 1.0, 0.8, 0.45, 0.15, 0.0)


class HeadMotion(NamedTuple):
    """Movement away from the portrait's own pose.

    Attributes:
        yaw_pitch_roll_deg: about the camera's y, x and z axis, in that order of application: roll first, yaw last.
        shift: x, y, z in decimetre.
        blink: 0 open to 1 closed.
    """

    yaw_pitch_roll_deg: Float[np.ndarray, "T 3"]
    shift: Float[np.ndarray, "T 3"]
    blink: Float[np.ndarray, "T"]


def random_motion(aperture: Float[np.ndarray, "T"], generator: np.random.Generator) -> HeadMotion:
    """Movement for as many frames as there are apertures; the head nods a little with open syllables."""
    num_frames = len(aperture)
    turns = np.stack([_wander(num_frames, _SLOWNESS_S, generator) * size for size in _YAW_PITCH_ROLL_DEG], axis=1)
    slow_aperture = gaussian_filter1d(aperture.astype(np.float64), 0.2 * FPS, mode="nearest")
    turns[:, 1] += _NOD_DEG * (slow_aperture - slow_aperture.mean()) / max(float(slow_aperture.std()), 1e-6)
    shift = np.stack([_wander(num_frames, 1.5 * _SLOWNESS_S, generator) * size for size in _SHIFT], axis=1)
    return HeadMotion(turns.astype(np.float32), shift.astype(np.float32), _blinks(num_frames, generator))


def _wander(num_frames: int, slowness_s: float, generator: np.random.Generator) -> np.ndarray:
    """Smooth noise of about unit deviation, held within 2 deviations."""
    margin = 4 * FPS
    noise = generator.standard_normal(num_frames + 2 * margin)
    width = slowness_s * FPS
    smooth = gaussian_filter1d(noise, width)[margin : margin + num_frames] * np.sqrt(2 * width * np.sqrt(np.pi))
    return 2 * np.tanh(smooth / 2)


def _blinks(num_frames: int, generator: np.random.Generator) -> np.ndarray:
    closure = np.zeros(num_frames + len(_BLINK_FRAMES), dtype=np.float32)
    start = float(generator.uniform(*_BLINK_GAP_S)) * 0.4
    while round(start * FPS) < num_frames:
        first = round(start * FPS)
        closure[first : first + len(_BLINK_FRAMES)] = _BLINK_FRAMES
        start += float(generator.uniform(*_BLINK_GAP_S))
    return closure[:num_frames]
