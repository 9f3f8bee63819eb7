"""MediaPipe's face mesh and face detectors: 478 landmarks of one speaker, and how many faces a frame shows.

The models ship inside the mediapipe wheel; nothing is downloaded. mediapipe is imported on first use (1-4 s).
"""

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gensync_core.face.regions import NUM_LANDMARKS

_WORKING_PX = 512  # at 128 px the aperture's noise and the landmarks' bias are lower than with 256 or 384, at the same speed
_HALF_PIXEL = 0.5  # mediapipe counts from the centre of the first pixel, we from its corner (measured by rescaling frames)
_MIN_FACE_SCORE = 0.6
_MAX_OVERLAP = 0.3
_SHORT_RANGE, _FULL_RANGE = 0, 1
_UNUSED = ("matplotlib", "matplotlib.pyplot", "sounddevice")

Frame: TypeAlias = UInt8[np.ndarray, "H W 3"]


class Face(NamedTuple):
    """One speaker's face.

    Attributes:
        landmarks: [478, 3] px of the frame that was given; z on the same scale, negative toward the camera.
        confidence: share of the landmarks that lie inside the frame, 0 to 1.
    """

    landmarks: Float[np.ndarray, "478 3"]
    confidence: float


_NOBODY = Face(np.full((NUM_LANDMARKS, 3), np.nan, dtype=np.float32), 0.0)


class FaceBox(NamedTuple):
    """A detected face: left, top, width, height in px, and the detector's score 0 to 1."""

    x: float
    y: float
    w: float
    h: float
    score: float


class FaceMesh:
    """Follows one face through consecutive frames; the same frames in the same order give the same landmarks."""

    def __init__(self, *, min_detection_confidence: float = 0.5, min_tracking_confidence: float = 0.5) -> None:
        self._graph: Any = mediapipe_solutions().face_mesh.FaceMesh(
            static_image_mode=False,
            max_num_faces=1,
            refine_landmarks=True,
            min_detection_confidence=min_detection_confidence,
            min_tracking_confidence=min_tracking_confidence,
        )

    def __enter__(self) -> "FaceMesh":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._graph.close()

    def detect(self, frame: Frame) -> Face | None:
        """Landmarks in the next RGB frame, or None where no face is seen."""
        height, width = frame.shape[:2]
        image = enlarge(frame)
        found = self._graph.process(image).multi_face_landmarks
        if not found:
            return None
        points = np.array([(point.x, point.y, point.z) for point in found[0].landmark], dtype=np.float32)
        if points.shape != (NUM_LANDMARKS, 3) or not np.isfinite(points).all():
            return None
        points[:, :2] += _HALF_PIXEL / np.array(image.shape[1::-1], dtype=np.float32)
        inside = ((points[:, :2] >= 0) & (points[:, :2] <= 1)).all(axis=1)
        return Face(points * np.array([width, height, width], dtype=np.float32), float(inside.mean()))


class FoundFaces:
    """What the mesh found in consecutive frames."""

    def __init__(self) -> None:
        self._landmarks: list[np.ndarray] = []
        self._confidence: list[float] = []

    def add(self, face: Face | None) -> None:
        """Append a frame; None: no face was seen."""
        landmarks, confidence = face or _NOBODY
        self._landmarks.append(landmarks)
        self._confidence.append(confidence)

    @property
    def landmarks_px(self) -> Float[np.ndarray, "T 478 3"]:
        """NaN where no face was seen."""
        return np.array(self._landmarks, dtype=np.float32).reshape(-1, NUM_LANDMARKS, 3)

    @property
    def confidence(self) -> Float[np.ndarray, "T"]:
        """0 where no face was seen."""
        return np.array(self._confidence, dtype=np.float32)


def follow_face(frames: Iterable[Frame], on_frame: Callable[[], None]) -> FoundFaces:
    """Look for the face in consecutive frames by a mesh of their own, so that no video sees another one's tracking.

    `on_frame` hears of every frame that is done.
    """
    found = FoundFaces()
    with FaceMesh() as mesh:
        for frame in frames:
            found.add(mesh.detect(np.ascontiguousarray(frame)))
            on_frame()
    return found


def detect_faces(frame: Frame) -> list[FaceBox]:
    """Faces in one RGB frame, best first: near and far model together, doubles removed."""
    height, width = frame.shape[:2]
    image = enlarge(frame)
    boxes = []
    for model in (_SHORT_RANGE, _FULL_RANGE):
        for found in _detector(model).process(image).detections or ():
            box = found.location_data.relative_bounding_box
            boxes.append(FaceBox(box.xmin * width, box.ymin * height, box.width * width, box.height * height, found.score[0]))
    return _without_doubles(boxes)


def enlarge(frame: Frame) -> UInt8[np.ndarray, "height width 3"]:
    """Frames under 512 px, upscaled so that the longer side has 512 px; others as they are."""
    height, width = frame.shape[:2]
    if max(height, width) >= _WORKING_PX:
        return np.ascontiguousarray(frame)
    scale = _WORKING_PX / max(height, width)
    return cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=1)
def mediapipe_solutions() -> ModuleType:
    """`mediapipe.solutions`, with the log of its C++ part kept to errors."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # mediapipe 0.10.14 calls what protobuf 4 has deprecated; nobody but mediapipe could act on it.
    warnings.filterwarnings("ignore", message="SymbolDatabase.GetPrototype", category=UserWarning)
    with _without_unused():
        import mediapipe

    return mediapipe.solutions


@contextmanager
def _without_unused() -> Iterator[None]:
    """MediaPipe imports what it plots and records with: two thirds of the time of its import, and we never use it."""
    stand_ins = {name: ModuleType(name) for name in _UNUSED if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


@functools.lru_cache(maxsize=2)
def _detector(model: int) -> Any:
    return mediapipe_solutions().face_detection.FaceDetection(model_selection=model, min_detection_confidence=_MIN_FACE_SCORE)


def _without_doubles(boxes: list[FaceBox]) -> list[FaceBox]:
    kept: list[FaceBox] = []
    for box in sorted(boxes, key=lambda candidate: -candidate.score):
        if all(_overlap(box, other) < _MAX_OVERLAP for other in kept):
            kept.append(box)
    return kept


def _overlap(first: FaceBox, second: FaceBox) -> float:
    """Intersection over the smaller box: a box inside another is its double, however small."""
    width = min(first.x + first.w, second.x + second.w) - max(first.x, second.x)
    height = min(first.y + first.h, second.y + second.h) - max(first.y, second.y)
    return max(width, 0.0) * max(height, 0.0) / max(min(first.w * first.h, second.w * second.h), 1e-6)
