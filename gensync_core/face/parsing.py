"""Which pixel belongs to what: three interchangeable parsers behind `FaceParser`.

- `mediapipe` (default): MediaPipe's person silhouette, landmark polygons and the rules of `head_rules`; nothing is downloaded.
- `multiclass`: MediaPipe's selfie_multiclass model (hair, skin, clothes); `model` is the path of its tflite file.
- `segformer`: a SegFormer of `transformers` with the 19 labels of CelebAMask-HQ; `model` is a hub id or a local folder.

A parser sees the frames of a clip in order and smooths over time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gensync_core.errors import AssetMissing
from gensync_core.face import regions
from gensync_core.face.head_rules import FaceAxes, HeadRules
from gensync_core.face.landmarks import FaceMesh, mediapipe_solutions
from gensync_core.face.polygons import paint_features, polygon_mask
from gensync_core.face.regions import Region

_SEGMENTER_PX = 256
_SEGFORMER_PX = 512
_NUM_REGIONS = len(Region)

Frame: TypeAlias = UInt8[np.ndarray, "H W 3"]
Labels: TypeAlias = UInt8[np.ndarray, "H W"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParseParams:
    """How frames are parsed.

    Attributes:
        backend: `mediapipe`, `multiclass` or `segformer`.
        model: file, folder or hub id of the model; empty for `mediapipe`, which needs none.
        temporal_smoothing: weight of the past in the running mean of the segmenter's probabilities, 0 to below 1.
    """

    backend: str = "mediapipe"
    model: str = ""
    temporal_smoothing: float = 0.3

    def __post_init__(self) -> None:
        if self.backend not in _BACKENDS:
            raise ValueError(f"backend must be one of {sorted(_BACKENDS)}, got {self.backend!r}")
        if self.backend != "mediapipe" and not self.model:
            raise ValueError(f"backend {self.backend!r} needs model: a path or a hub id")
        if not 0 <= self.temporal_smoothing < 1:
            raise ValueError(f"temporal_smoothing must lie in [0, 1), got {self.temporal_smoothing}")


class _Backend(Protocol):
    """Labels one frame; `landmarks_px` is None as long as no face has been seen."""

    def label(self, frame: Frame, landmarks_px: Float[np.ndarray, "478 3"] | None) -> Labels: ...

    def close(self) -> None: ...


class FaceParser:
    """Parses the frames of one clip in order.

    Attributes:
        num_frames: frames parsed so far.
        num_faceless: those of them in which no face was found; they use the last face's landmarks.
    """

    def __init__(self, params: ParseParams | None = None) -> None:
        """Load the models.

        Raises:
            AssetMissing: the model that `params` names cannot be loaded.
        """
        params = params or ParseParams()
        self._backend = _BACKENDS[params.backend](params)
        self._mesh = FaceMesh()
        self._landmarks: np.ndarray | None = None
        self.num_frames = self.num_faceless = 0

    def __enter__(self) -> "FaceParser":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._mesh.__exit__(kind, error, trace)
        self._backend.close()

    def parse(self, frame: Frame) -> Labels:
        """Label ids (`Region`) of the next RGB frame."""
        face = self._mesh.detect(frame)
        self.num_frames += 1
        if face is None:
            self.num_faceless += 1
        else:
            self._landmarks = face.landmarks
        labels = self._backend.label(frame, self._landmarks)
        if self._landmarks is not None:
            paint_features(labels, self._landmarks)
        return labels


class _RunningMean:
    """Exponential mean over frames."""

    def __init__(self, memory: float) -> None:
        self._memory, self._mean = memory, None

    def add(self, value: np.ndarray) -> np.ndarray:
        self._mean = value if self._mean is None else self._memory * self._mean + (1 - self._memory) * value
        return self._mean


class _SilhouetteBackend:
    """MediaPipe's selfie segmentation and the rules for head, neck and torso."""

    def __init__(self, params: ParseParams) -> None:
        self._segmenter: Any = mediapipe_solutions().selfie_segmentation.SelfieSegmentation(model_selection=0)
        self._probability = _RunningMean(params.temporal_smoothing)
        self._rules = HeadRules()

    def label(self, frame: Frame, landmarks_px: Float[np.ndarray, "478 3"] | None) -> Labels:
        height, width = frame.shape[:2]
        small = cv2.resize(frame, (_SEGMENTER_PX, _SEGMENTER_PX), interpolation=cv2.INTER_AREA)
        probability = self._probability.add(np.array(self._segmenter.process(small).segmentation_mask))
        person = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
        if landmarks_px is None:
            return np.where(person, Region.TORSO, Region.BACKGROUND).astype(np.uint8)
        oval = polygon_mask(landmarks_px, regions.FACE_OVAL, width, height)
        return self._rules.label(frame, _speaker_only(person | oval, oval), landmarks_px)

    def close(self) -> None:
        self._segmenter.close()


class _MulticlassBackend:
    """MediaPipe's selfie_multiclass: background, hair, body skin, face skin, clothes, others."""

    def __init__(self, params: ParseParams) -> None:
        if not Path(params.model).is_file():
            raise AssetMissing(f"parse.model: {params.model} is no file; give the path of selfie_multiclass_256x256.tflite")
        mediapipe_solutions()
        import mediapipe as mp

        options = mp.tasks.vision.ImageSegmenterOptions(
            base_options=mp.tasks.BaseOptions(model_asset_path=params.model),
            output_confidence_masks=True,
            output_category_mask=False,
        )
        self._segmenter: Any = mp.tasks.vision.ImageSegmenter.create_from_options(options)
        self._image = lambda pixels: mp.Image(image_format=mp.ImageFormat.SRGB, data=pixels)
        self._probability = _RunningMean(params.temporal_smoothing)

    def label(self, frame: Frame, landmarks_px: Float[np.ndarray, "478 3"] | None) -> Labels:
        height, width = frame.shape[:2]
        small = cv2.resize(frame, (_SEGMENTER_PX, _SEGMENTER_PX), interpolation=cv2.INTER_AREA)
        masks = self._segmenter.segment(self._image(small)).confidence_masks
        probability = self._probability.add(np.stack([np.array(mask.numpy_view()) for mask in masks], axis=-1))
        classes = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR).argmax(axis=-1)
        plain = (Region.BACKGROUND, Region.HAIR, Region.NECK, Region.FACE, Region.TORSO, Region.TORSO)
        labels = np.array(plain, dtype=np.uint8)[classes]
        if landmarks_px is not None:
            axes = FaceAxes.of(landmarks_px, width, height)
            labels[(classes == 2) & ((axes.y > 3) | (np.abs(axes.x) > 1.5))] = Region.TORSO  # hands
            labels[(classes == 5) & (axes.y < 1) & (np.abs(axes.x) < 1.5)] = Region.HAIR  # hats, headphones
            oval = polygon_mask(landmarks_px, regions.FACE_OVAL, width, height)
            labels[oval & (classes != 1)] = Region.FACE  # with glasses
        return labels

    def close(self) -> None:
        self._segmenter.close()


CELEBAMASK_REGIONS: dict[str, Region] = {
    "background": Region.BACKGROUND,
    **dict.fromkeys(("skin", "nose", "eye_g", "l_brow", "r_brow", "l_ear", "r_ear", "ear_r"), Region.FACE),
    **dict.fromkeys(("l_eye", "r_eye"), Region.EYES),
    **dict.fromkeys(("u_lip", "l_lip"), Region.LIPS),
    "mouth": Region.MOUTH,
    **dict.fromkeys(("hair", "hat"), Region.HAIR),
    **dict.fromkeys(("neck", "neck_l"), Region.NECK),
    "cloth": Region.TORSO,
}
"""Label names of CelebAMask-HQ (`eye_g` glasses, `ear_r` ear ring, `neck_l` necklace) and what they are to us."""


class _SegformerBackend:
    """A SegFormer trained on the labels of CelebAMask-HQ."""

    def __init__(self, params: ParseParams) -> None:
        import torch
        from transformers import SegformerForSemanticSegmentation

        self._torch = torch
        try:
            self._model: Any = SegformerForSemanticSegmentation.from_pretrained(params.model).eval()
        except (OSError, ValueError) as error:
            raise AssetMissing(
                f"parse.model: SegFormer {params.model!r} cannot be loaded ({str(error).splitlines()[0]}); "
                "give a local folder, or allow the download"
            ) from error
        names = {int(index): str(name).lower() for index, name in self._model.config.id2label.items()}
        unknown = sorted(set(names.values()) - CELEBAMASK_REGIONS.keys())
        if unknown:
            raise AssetMissing(
                f"parse.model: {params.model!r} has labels that are not CelebAMask-HQ's ({', '.join(unknown)}); "
                "choose a face parsing model"
            )
        # [classes, regions]: which class adds to which region's probability
        self._to_region = np.zeros((len(names), _NUM_REGIONS), dtype=np.float32)
        for index, name in names.items():
            self._to_region[index, CELEBAMASK_REGIONS[name]] = 1
        self._probability = _RunningMean(params.temporal_smoothing)

    def label(self, frame: Frame, landmarks_px: Float[np.ndarray, "478 3"] | None) -> Labels:
        del landmarks_px
        torch = self._torch
        height, width = frame.shape[:2]
        image = cv2.resize(frame, (_SEGFORMER_PX, _SEGFORMER_PX), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        image = (image - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
        with torch.inference_mode():
            logits = self._model(pixel_values=torch.from_numpy(image.transpose(2, 0, 1)[None])).logits[0]
        classes = torch.softmax(logits, dim=0).numpy().transpose(1, 2, 0)
        probability = self._probability.add(classes @ self._to_region)
        return cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR).argmax(axis=-1).astype(np.uint8)

    def close(self) -> None:
        """Nothing to free."""


_BACKENDS: dict[str, Callable[[ParseParams], _Backend]] = {
    "mediapipe": _SilhouetteBackend,
    "multiclass": _MulticlassBackend,
    "segformer": _SegformerBackend,
}


def _speaker_only(person: Bool[np.ndarray, "H W"], oval: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The piece of the silhouette that holds the face, its small holes filled: no bystanders, no specks."""
    _, components = cv2.connectedComponents(person.astype(np.uint8), connectivity=4)
    inside = components[oval & person]
    if not len(inside):
        return person
    speaker = components == np.bincount(inside).argmax()
    _, holes, stats, _ = cv2.connectedComponentsWithStats((~speaker).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < person.size * 0.005
    small[0] = False
    return speaker | small[holes]
