"""Region probabilities at working size, carried from frame to frame with the picture's motion.

A segmenter judges every few frames; in between, and before each new judgement is mixed in, what is known moves along with
the optical flow. So boundaries follow the speaker without lag, and do not tremble with the segmenter's mind.

Probabilities are held in 255ths, four regions as the channels of one picture: `cv2.remap` then finds each place once, in a
sixth of the time.
"""

from collections.abc import Iterable
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_CHANNELS = 4
_CERTAIN = 255
_FLOW_PX = 96
_TRUSTED_PATH = 0.035
"""Share of the frame's larger side over which carrying a mask costs 63 % of the trust in it."""
_CUT_DIFFERENCE = 18.0
"""Mean difference in grey levels that motion does not explain, from which on two frames show different scenes."""


Fours: TypeAlias = list[UInt8[np.ndarray, "h w ..."]]


class MaskFilter:
    """Holds the mean of past judgements where the current frame shows them.

    Source: own choice; the flow is OpenCV's dense inverse search (Kroeger et al. 2016).
    """

    def __init__(self, memory: float) -> None:
        """`memory`: weight of the past when a new judgement is mixed in, 0 to below 1."""
        self._memory = memory
        self._mean: Fours | None = None
        self._path: np.ndarray | None = None  # how far each pixel has come since the last judgement, in px of the flow
        self._gray: np.ndarray | None = None
        self._flow: cv2.DISOpticalFlow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(0)  # of a small picture every pixel counts: coarser flow doubles the flicker
        # Propagation runs within stripes, of which there is one for each thread: results would depend on the machine.
        self._flow.setUseSpatialPropagation(False)

    def follow(self, small: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Move on to the next frame; False where nothing is known of it: it is the first one, or a cut lies before it."""
        height, width = small.shape[:2]
        shrink = min(1.0, _FLOW_PX / max(height, width))
        size = max(8, round(width * shrink)), max(8, round(height * shrink))
        gray = cv2.resize(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        past, self._gray = self._gray, gray
        if past is None or self._mean is None:
            return False
        flow = self._flow.calc(gray, past, np.empty(0))  # where in the past frame the current one's pixels were
        carried = cv2.remap(past, *_places(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if cv2.norm(gray, carried, cv2.NORM_L1) > _CUT_DIFFERENCE * gray.size:
            self._mean = self._path = None
            return False
        step = cv2.magnitude(*cv2.split(flow))
        self._path = step if self._path is None else self._path + step
        scale = np.array([width / size[0], height / size[1]], dtype=np.float32)
        self._mean = _sampled(self._mean, *_places(cv2.resize(flow * scale, (width, height), interpolation=cv2.INTER_LINEAR)))
        return True

    @property
    def restless(self) -> bool:
        """Whether parts of the picture have moved so far that a new judgement is due."""
        return self._path is not None and float(np.quantile(self._path, 0.9)) > _TRUSTED_PATH * max(self._path.shape)

    def mix(self, judged: Float[np.ndarray, "R h w"]) -> None:
        """Mix in what the segmenter says of the current frame; the past counts less where it was carried far."""
        height, width = judged.shape[1:]
        if self._mean is not None:
            path = np.zeros((height, width), np.float32) if self._path is None else self._path
            trust = self._memory * np.exp(-path / (_TRUSTED_PATH * max(path.shape)))
            weight = cv2.resize(trust, (width, height), interpolation=cv2.INTER_LINEAR)
            past = np.stack(_apart(self._mean)) / np.float32(_CERTAIN)
            judged = judged + weight * (past - judged)
        self._mean, self._path = _in_fours(judged), None

    def labels(self, width: int, height: int) -> UInt8[np.ndarray, "height width"]:
        """The most probable region of each pixel of the whole frame.

        Raises:
            ValueError: nothing was mixed in yet.
        """
        if self._mean is None:
            raise ValueError("no region is known yet; mix in a judgement first")
        whole = [cv2.resize(four, (width, height), interpolation=cv2.INTER_LINEAR) for four in self._mean]
        return most_probable(_apart(whole))


def most_probable(probabilities: Iterable[UInt8[np.ndarray, "h w"]]) -> UInt8[np.ndarray, "h w"]:
    """Number of the plane that is greatest; the first one wins a draw."""
    first, *others = probabilities
    best, labels = first.copy(), np.zeros(first.shape, dtype=np.uint8)
    for region, other in enumerate(others, start=1):
        better = cv2.compare(other, best, cv2.CMP_GT)
        np.maximum(labels, np.bitwise_and(better, region, out=better), out=labels)
        np.maximum(best, other, out=best)
    return labels


def _in_fours(probabilities: Float[np.ndarray, "R h w"]) -> Fours:
    """Planes as channels, in 255ths."""
    planes = [*np.rint(probabilities * _CERTAIN).astype(np.uint8)]
    return [cv2.merge(planes[first : first + _CHANNELS]) for first in range(0, len(planes), _CHANNELS)]


def _apart(fours: Fours) -> list[UInt8[np.ndarray, "h w"]]:
    return [plane for four in fours for plane in cv2.split(four)]


def _places(flow: Float[np.ndarray, "h w 2"]) -> tuple[np.ndarray, np.ndarray]:
    """Maps for `cv2.remap` that fetch each pixel from where the flow says that it was."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    return x, flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]


def _sampled(
    fours: Fours, x: Float[np.ndarray, "rows columns"], y: Float[np.ndarray, "rows columns"]
) -> list[UInt8[np.ndarray, "rows columns ..."]]:
    """At places between pixels."""
    return [cv2.remap(four, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for four in fours]
