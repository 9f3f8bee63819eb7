"""How much music a sound is like: notes are held, the overtones of a voice glide."""

import numpy as np
from jaxtyping import Bool, Float

from gensync_core.media.clip_cutting import SAMPLE_RATE_HZ

_HOP, _WINDOW = 512, 1024
_HALF_FRAMES = 40  # a block is two halves, and the next begins with its second
BLOCK_S = 2 * _HALF_FRAMES * _HOP / SAMPLE_RATE_HZ
BLOCK_STEP_S = _HALF_FRAMES * _HOP / SAMPLE_RATE_HZ

_LOWEST_BIN, _HIGHEST_BIN = 6, 320  # 94 Hz to 5 kHz
_NEIGHBOUR_BINS = 21
_STANDS_OUT_DB = 1.0
_FLOOR = 1e-2  # power of a tone at about -70 dBFS: fainter ones do not count
_NUM_PEAKS = 5


class ToneSteadiness:
    """Hears 16 kHz sound a block at a time; one number for each 2.56 s of it, every 1.28 s.

    The number is about 0.15 to 0.4 for speech and for noise, 0.5 to 1 for music; a hum or an alarm sounds like music to it,
    drums alone do not.

    Source: Seyerlehner, Pohle, Schedl, Widmer, Automatic Music Detection in Television Productions (2007), continuous frequency
    activation; windows and the threshold of one decibel are our own choice.
    """

    def __init__(self) -> None:
        self._last = np.zeros(0, dtype=np.float32)
        self._waiting = np.zeros((0, _HIGHEST_BIN - _LOWEST_BIN), dtype=bool)
        self._half: np.ndarray | None = None
        self.steadiness: list[float] = []

    def hear(self, samples: Float[np.ndarray, "N"]) -> None:
        """Take the next samples, in -1..1; N is a whole number of hops of 512."""
        heard = np.concatenate([self._last, samples])
        self._last = heard[-_HOP:]
        if len(heard) < _WINDOW:
            return
        self._waiting = np.concatenate([self._waiting, _standing_out(heard)])
        while len(self._waiting) >= _HALF_FRAMES:
            half, self._waiting = self._waiting[:_HALF_FRAMES].mean(axis=0), self._waiting[_HALF_FRAMES:]
            if self._half is not None:
                self.steadiness.append(_peakedness((self._half + half) / 2))
            self._half = half


def _standing_out(samples: Float[np.ndarray, "N"]) -> Bool[np.ndarray, "F B"]:
    """Bins that are louder than their neighbourhood."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW + 1)[:-1])) ** 2
    level_db = 10 * np.log10(power + _FLOOR)
    reach = _NEIGHBOUR_BINS // 2
    sums = np.pad(np.pad(level_db, ((0, 0), (reach, reach)), mode="edge").cumsum(axis=1), ((0, 0), (1, 0)))
    around_db = (sums[:, _NEIGHBOUR_BINS:] - sums[:, :-_NEIGHBOUR_BINS]) / _NEIGHBOUR_BINS
    return (level_db - around_db > _STANDS_OUT_DB)[:, _LOWEST_BIN:_HIGHEST_BIN]


def _peakedness(activation: Float[np.ndarray, "B"]) -> float:
    """Sum over the sharpest peaks of height over width, from valley to valley."""
    slope = np.diff(activation)
    falls, rises = np.flatnonzero(slope < 0), np.flatnonzero(slope > 0)
    tops = np.flatnonzero((slope[:-1] >= 0) & (slope[1:] < 0)) + 1
    left = np.append(-1, falls)[np.searchsorted(falls, tops)] + 1
    right = np.append(rises, len(slope))[np.searchsorted(rises, tops)]
    heights = activation[tops] - np.maximum(activation[left], activation[right])
    return float(np.sort(heights / (right - left))[-_NUM_PEAKS:].sum())
