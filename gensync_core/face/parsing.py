"""Which pixel belongs to what: interchangeable segmenters (`segmenters`), landmarks, and a filter over time.

A parser sees the frames of a clip in order. The face mesh runs on every frame, the segmenter on every few of them; between
its judgements the regions move with the picture (`mask_filter`). Eyes, lips and the open mouth are the mesh's own outlines.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from gensync_core.face.landmarks import Face, FaceMesh, FoundFaces
from gensync_core.face.mask_filter import MaskFilter
from gensync_core.face.polygons import paint_features
from gensync_core.face.segmenters import SEGMENTERS, Sight

_WORKING_PX = 256  # the size that MediaPipe's segmenters work at

Frame: TypeAlias = UInt8[np.ndarray, "H W 3"]
Labels: TypeAlias = UInt8[np.ndarray, "H W"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParseParams:
    """How frames are parsed.

    Attributes:
        backend: `mediapipe`, `multiclass` or `segformer`.
        model: file, folder or hub id of the model; empty for `mediapipe`, which needs none.
        every: the segmenter judges each so many-th frame, sooner where the picture moves; 1 for every frame.
        temporal_smoothing: weight of the past, carried along with the picture's motion, when a judgement is mixed in;
            0 to below 1.
    """

    backend: str = "mediapipe"
    model: str = ""
    every: int = 8
    temporal_smoothing: float = 0.7

    def __post_init__(self) -> None:
        if self.backend not in SEGMENTERS:
            raise ValueError(f"backend must be one of {sorted(SEGMENTERS)}, got {self.backend!r}")
        if self.backend != "mediapipe" and not self.model:
            raise ValueError(f"backend {self.backend!r} needs model: a path or a hub id")
        if not 1 <= self.every <= 25:
            raise ValueError(f"every must lie in 1 to 25 frames, got {self.every}")
        if not 0 <= self.temporal_smoothing < 1:
            raise ValueError(f"temporal_smoothing must lie in [0, 1), got {self.temporal_smoothing}")


class FaceParser:
    """Parses the frames of one clip in order.

    Attributes:
        faces: what the mesh found in the frames so far.
        num_faceless: frames in which it found no face; they use the last face's landmarks.
    """

    def __init__(self, params: ParseParams | None = None) -> None:
        """Load the models.

        Raises:
            AssetMissing: the model that `params` names cannot be loaded.
        """
        params = params or ParseParams()
        self._segmenter = SEGMENTERS[params.backend](params.model)
        self._mesh = FaceMesh()
        self._filter = MaskFilter(params.temporal_smoothing)
        self._every, self._carried = params.every, 0
        self._landmarks: np.ndarray | None = None
        self.faces, self.num_faceless = FoundFaces(), 0

    def __enter__(self) -> "FaceParser":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._mesh.__exit__(kind, error, trace)
        self._segmenter.close()

    def parse(self, frame: Frame) -> Labels:
        """Label ids (`Region`) of the next RGB frame."""
        return self.label(frame, self.look(frame))

    def look(self, frame: Frame) -> Face | None:
        """The first half of `parse`: the face in the next frame. It may run in another thread, ahead of `label`."""
        return self._mesh.detect(frame)

    def label(self, frame: Frame, face: Face | None) -> Labels:
        """The second half of `parse`."""
        self.faces.add(face)
        found_again = face is not None and self._landmarks is None
        if face is None:
            self.num_faceless += 1
        else:
            self._landmarks = face.landmarks
        small = _shrink(frame)
        followed = self._filter.follow(small)
        self._carried += 1
        if not followed or found_again or self._carried >= self._every or self._filter.restless:
            self._filter.mix(self._segmenter.regions(Sight(frame, small, self._landmarks)))
            self._carried = 0
        height, width = frame.shape[:2]
        labels = self._filter.labels(width, height)
        if self._landmarks is not None:
            paint_features(labels, self._landmarks)
        return labels


def _shrink(frame: Frame) -> Frame:
    """The frame at working size; smaller ones as they are."""
    height, width = frame.shape[:2]
    scale = _WORKING_PX / max(height, width)
    if scale >= 1:
        return frame
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
