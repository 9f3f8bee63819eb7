"""The background plate: what is behind the speaker, gathered from frames in which the head was elsewhere."""

import cv2
import numpy as np
from jaxtyping import UInt8

from gensync_core.face.regions import Region

_PERSON_MARGIN = 0.02  # of the frame's width: motion blur and soft edges of the person are kept out of the plate
_STEP = 2.0  # grey levels by which the running median moves at first
_INPAINT_RADIUS = 0.02


class PlateBuilder:
    """Running median per pixel over the frames that show the background there; memory does not grow with the clip.

    Source: the sign-based running median of McFarlane and Schofield (1995), with a step that shrinks with the count.
    """

    def __init__(self) -> None:
        self._plate: np.ndarray | None = None
        self._count: np.ndarray | None = None

    def add(self, frame: UInt8[np.ndarray, "H W 3"], labels: UInt8[np.ndarray, "H W"]) -> None:
        """Take in the next frame and its labels."""
        if self._plate is None or self._count is None:
            self._plate = np.zeros(frame.shape, dtype=np.float32)
            self._count = np.zeros(labels.shape, dtype=np.int32)
        margin = max(1, round(frame.shape[1] * _PERSON_MARGIN))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
        person = cv2.dilate((labels != Region.BACKGROUND).astype(np.uint8), kernel) > 0
        seen = ~person
        first = seen & (self._count == 0)
        self._plate[first] = frame[first]
        again = seen & ~first
        difference = frame[again].astype(np.float32) - self._plate[again]
        step = _STEP / np.sqrt(1 + self._count[again] / 25)[:, None]
        self._plate[again] += np.clip(difference, -step, step)
        self._count[seen] += 1

    def finish(self) -> tuple[UInt8[np.ndarray, "H W 3"], float]:
        """The plate, and the share of its pixels that no frame showed and that were inpainted.

        Raises:
            ValueError: no frame was added.
        """
        if self._plate is None or self._count is None:
            raise ValueError("no frame was added")
        plate = np.clip(np.round(self._plate), 0, 255).astype(np.uint8)
        unseen = self._count == 0
        share = float(unseen.mean())
        if 0 < share < 1:
            plate = _inpaint(plate, unseen)
        return plate, share


def _inpaint(plate: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Fill unseen pixels at a quarter of the size first: the hole is as large as the person, its middle is guesswork."""
    height, width = unseen.shape
    small_size = (max(1, width // 4), max(1, height // 4))
    known = (~unseen).astype(np.float32)
    weight = cv2.resize(known, small_size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(plate * known[..., None], small_size, interpolation=cv2.INTER_AREA) / np.maximum(weight, 1e-6)[..., None]
    hole = (weight < 0.5).astype(np.uint8)
    radius = max(2.0, _INPAINT_RADIUS * width)
    small_filled = cv2.inpaint(np.clip(small, 0, 255).astype(np.uint8), hole, radius, cv2.INPAINT_TELEA)
    guess = cv2.resize(small_filled, (width, height), interpolation=cv2.INTER_LINEAR)
    filled = np.where(unseen[..., None], guess, plate).astype(np.uint8)
    rim = cv2.dilate(unseen.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    smooth = cv2.GaussianBlur(filled, (5, 5), 0)
    return np.where((unseen & rim)[..., None], smooth, filled)
