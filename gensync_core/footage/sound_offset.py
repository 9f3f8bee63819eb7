"""How late a footage's sound is, from the mouth alone: no speech encoder, no weights but a table of 258 numbers.

Two linear maps, fitted together by canonical correlation on people in sync, take five frames of log-mel bands and the
mouth's distances to two curves each that go up and down together. The shift at which they do so best is the offset.

Source: own choice. The maps were fitted by `benchmarks/sound_offset.py` on eleven clips of ten people of the GRID corpus
(Cooke, Barker, Cunningham and Shao 2006, CC BY 4.0); nothing of the recordings is in them.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from gensync_core.audio.log_mel import HOP, mel_power
from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME
from gensync_core.face import regions
from gensync_core.face.expression import inter_ocular

NUM_MELS: Final = 24
CONTEXT_FRAMES: Final = 2
MIN_FRAMES: Final = 6 * FPS

_MAPS: Final = Path(__file__).with_name("sound_offset.npz")
_DISTANCES: Final = (
    *((13, 14), (82, 87), (312, 317)),  # inner lips: their mean is the first curve
    (regions.RIGHT_MOUTH_CORNER, regions.LEFT_MOUTH_CORNER),
    (0, 17),
    (regions.NOSE_TIP, regions.CHIN),
    (regions.NOSE_BASE, 0),
    (17, regions.CHIN),
    (0, 13),
    (14, 17),
    (78, 308),
)
_INNER: Final = 3
_SLOW_FRAMES: Final = 8  # slower motion is posture and smiles; it only blurs the peak
_MAX_LAG: Final = 13
_FAR_LAGS: Final = (20, 75)  # speech and mouth are unrelated there: what correlates does so by chance
_FLOOR: Final = 1e-6


class OffsetMaps(NamedTuple):
    """Linear maps to curves that correlate where sound and mouth are in sync: columns are pairs, best first."""

    sound: Float[np.ndarray, "D K"]
    mouth: Float[np.ndarray, "9 K"]


class SoundOffset(NamedTuple):
    """How late the sound is.

    Attributes:
        seconds: positive: the sound is late; shifting the sound forward by it brings it into sync.
        certainty: height of the best shift's correlation over those by chance, in standard deviations of the latter.
        correlation: of sound and mouth at that shift.
    """

    seconds: float
    certainty: float
    correlation: float


class WatchedSpeech(NamedTuple):
    """One stretch: the mouth's distances by frame at 25 fps (NaN: no face), and 640 samples at 16 kHz for each frame."""

    mouth: Float[np.ndarray, "T 9"]
    samples: Float[np.ndarray, "N"]


def mouth_distances(landmarks: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, "9"]:
    """Inner lips, corners, outer lips, chin to nose and parts of it, over the inter-ocular distance."""
    ends = landmarks[np.array(_DISTANCES), :2].astype(np.float64)
    lengths = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1) / inter_ocular(landmarks)
    return np.concatenate([[lengths[:_INNER].mean()], lengths[_INNER:]])


def measure_offset(stretches: Sequence[WatchedSpeech], maps: OffsetMaps | None = None) -> SoundOffset | None:
    """The offset within +-0.5 s that all stretches together speak for; None where they are too short (6 s) or nothing moves.

    Stretches count by their number of frames.
    """
    maps = maps or _shipped_maps()
    long_enough = [one for one in stretches if len(one.mouth) >= MIN_FRAMES and np.isfinite(one.mouth).all(axis=1).mean() > 0.5]
    if not long_enough:
        return None
    far = np.arange(_FAR_LAGS[0], min(_FAR_LAGS[1], min(len(one.mouth) for one in long_enough) // 2) + 1)
    near = np.arange(-_MAX_LAG, _MAX_LAG + 1)
    lags = np.concatenate([near, -far, far])
    weights = np.array([len(one.mouth) for one in long_enough], dtype=np.float64)
    curves = np.array([_correlations(one, maps, lags) for one in long_enough])
    together = (curves * weights[:, None]).sum(axis=0) / weights.sum()
    scores, chance = together[: len(near)], together[len(near) :]
    if not np.isfinite(together).all() or chance.std() < _FLOOR:
        return None
    best = int(scores.argmax())
    lag = near[best] + _peak_between(scores, best)
    certainty = (scores[best] - chance.mean()) / chance.std()
    return SoundOffset(float(lag / FPS), float(certainty), float(scores[best]))


def sound_features(samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "T D"]:
    """24 log-mel bands of each frame and two on either side, each band of mean 0 and variance 1."""
    per_frame = SAMPLES_PER_FRAME // HOP
    power = np.log(np.maximum(mel_power(samples, NUM_MELS), _FLOOR))
    num_frames = len(power) // per_frame
    bands = _standardised(power[: num_frames * per_frame].reshape(num_frames, per_frame, NUM_MELS).mean(axis=1))
    around = np.arange(num_frames)[:, None] + np.arange(-CONTEXT_FRAMES, CONTEXT_FRAMES + 1)
    return bands[np.clip(around, 0, num_frames - 1)].reshape(num_frames, -1).astype(np.float64)


def mouth_features(mouth: Float[np.ndarray, "T 9"]) -> Float[np.ndarray, "T 9"]:
    """Fast motion of the distances, mean 0 and variance 1; gaps are bridged by straight lines."""
    frames = np.arange(len(mouth))
    bridged = np.empty_like(mouth)
    for column in range(mouth.shape[1]):
        seen = np.isfinite(mouth[:, column])
        bridged[:, column] = np.interp(frames, frames[seen], mouth[seen, column])
    return _standardised(_fast(bridged))


def _correlations(watched: WatchedSpeech, maps: OffsetMaps, lags: np.ndarray) -> np.ndarray:
    num_frames = min(len(watched.mouth), len(watched.samples) // SAMPLES_PER_FRAME)
    mouth = mouth_features(watched.mouth[:num_frames]) @ maps.mouth
    sound = _fast(sound_features(watched.samples[: num_frames * SAMPLES_PER_FRAME]) @ maps.sound)
    scores = []
    for lag in lags:
        seen, heard = mouth[max(0, -lag) : num_frames - max(0, lag)], sound[max(0, lag) : num_frames - max(0, -lag)]
        seen, heard = seen - seen.mean(axis=0), heard - heard.mean(axis=0)
        norms = np.sqrt((seen**2).sum(axis=0) * (heard**2).sum(axis=0))
        scores.append(float(((seen * heard).sum(axis=0) / np.maximum(norms, _FLOOR)).mean()))
    return np.array(scores)


def _peak_between(scores: np.ndarray, best: int) -> float:
    if not 0 < best < len(scores) - 1:
        return 0.0
    left, middle, right = scores[best - 1 : best + 2]
    curvature = left - 2 * middle + right
    return float(0.5 * (left - right) / curvature) if curvature < 0 else 0.0


def _fast(curves: np.ndarray) -> np.ndarray:
    return curves - gaussian_filter1d(curves, _SLOW_FRAMES, axis=0)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), _FLOOR)


@functools.lru_cache(maxsize=1)
def _shipped_maps() -> OffsetMaps:
    with np.load(_MAPS) as stored:
        return OffsetMaps(stored["sound"].astype(np.float64), stored["mouth"].astype(np.float64))
