"""The background plate: what is behind the speaker, gathered from frames in which the head was elsewhere."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from gensync_core.face.regions import Region

_PERSON_MARGIN = 0.02  # of the frame's width: motion blur and soft edges of the person are kept out of the plate
_STEP = 2.0  # grey levels by which the running median moves at first
_ENOUGH_FRAMES, _MOST_SKIPPED = 60, 8
_INPAINT_RADIUS = 0.02
_STRIPE_ROWS = 32  # few rows at a time stay in the cache


class Plate(NamedTuple):
    """The scene without the speaker.

    Attributes:
        image: RGB.
        unseen: pixels that no frame showed: `image` is a guess there.
    """

    image: UInt8[np.ndarray, "H W 3"]
    unseen: Bool[np.ndarray, "H W"]

    @property
    def inpainted_share(self) -> float:
        """Share of the pixels that are guessed, 0 to 1."""
        return float(self.unseen.mean())


class PlateBuilder:
    """Running median per pixel over the frames that show the background there; memory does not grow with the clip.

    Source: the sign-based running median of McFarlane and Schofield (1995), with a step that shrinks with the count.
    """

    def __init__(self, num_frames: int = 0) -> None:
        """`num_frames`: how long the clip is; of long ones every eighth frame is taken. 0: every frame."""
        self._every = min(max(1, num_frames // _ENOUGH_FRAMES), _MOST_SKIPPED)
        self._given = 0
        self._plate: np.ndarray | None = None
        self._count: np.ndarray | None = None

    def add(self, frame: UInt8[np.ndarray, "H W 3"], labels: UInt8[np.ndarray, "H W"]) -> None:
        """Take in the next frame and its labels."""
        self._given += 1
        if (self._given - 1) % self._every:
            return
        if self._plate is None or self._count is None:
            self._plate = np.zeros(frame.shape, dtype=np.float32)
            self._count = np.zeros(labels.shape, dtype=np.float32)
        margin = max(1, round(frame.shape[1] * _PERSON_MARGIN))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
        person = cv2.dilate((labels != Region.BACKGROUND).astype(np.uint8), kernel)
        for top in range(0, len(frame), _STRIPE_ROWS):
            rows = slice(top, top + _STRIPE_ROWS)
            _approach(self._plate[rows], self._count[rows], frame[rows], person[rows] == 0, self._every)

    def finish(self) -> Plate:
        """The plate; what no frame showed is inpainted from its surroundings.

        Raises:
            ValueError: no frame was added.
        """
        if self._plate is None or self._count is None:
            raise ValueError("no frame was added")
        image = np.clip(np.round(self._plate), 0, 255).astype(np.uint8)
        unseen = self._count == 0
        if unseen.any() and not unseen.all():
            image = _inpaint(image, unseen)
        return Plate(image, unseen)


def _approach(plate: np.ndarray, count: np.ndarray, frame: np.ndarray, seen: np.ndarray, num_frames: int) -> None:
    """Move `plate` towards `frame` where it is `seen`, as far as so many frames like it would take it, in place."""
    step = seen * (num_frames * _STEP / np.sqrt(1 + count / 25))
    step[seen & (count == 0)] = 255  # a pixel's first sight is taken as it is
    limit = cv2.merge([step.astype(np.float32)] * 3)
    away = cv2.subtract(frame, plate, dtype=cv2.CV_32F)
    plate += cv2.max(cv2.min(away, limit), -limit)
    count += num_frames * seen


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
