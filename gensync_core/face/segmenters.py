"""What judges the regions of one frame: three interchangeable segmenters.

- `mediapipe` (default): MediaPipe's person silhouette, landmark polygons and the rules of `head_rules`; nothing is downloaded.
- `multiclass`: MediaPipe's selfie_multiclass model (hair, skin, clothes); `model` is the path of its tflite file.
- `segformer`: a SegFormer of `transformers` with the 19 labels of CelebAMask-HQ; `model` is a hub id or a local folder.

Shapes: h, w of the working size; R regions, in the order of their ids: the first five, or all.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gensync_core.errors import AssetMissing
from gensync_core.face import regions
from gensync_core.face.head_rules import FaceAxes, HeadRules
from gensync_core.face.landmarks import mediapipe_solutions
from gensync_core.face.polygons import polygon_mask
from gensync_core.face.regions import Region

_SELFIE_PX = 256
_SEGFORMER_PX = 512
_NUM_LARGE = 1 + Region.FACE
"""Regions but for eyes, lips and mouth, which are the landmarks' matter."""
_MAX_HOLE = 0.005


class Sight(NamedTuple):
    """What a segmenter sees of one frame.

    Attributes:
        frame: RGB as it is in the clip.
        small: the same at working size.
        landmarks_px: in px of `frame`; None as long as no face has been seen.
    """

    frame: UInt8[np.ndarray, "H W 3"]
    small: UInt8[np.ndarray, "h w 3"]
    landmarks_px: Float[np.ndarray, "478 3"] | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the working size."""
        return self.small.shape[1], self.small.shape[0]

    def small_landmarks(self) -> Float[np.ndarray, "478 3"] | None:
        """Landmarks in px of `small`."""
        return None if self.landmarks_px is None else self.landmarks_px * (self.small.shape[1] / self.frame.shape[1])


class Segmenter(Protocol):
    """Judges frames one by one; it may remember colours of past ones."""

    def regions(self, sight: Sight) -> Float[np.ndarray, "R h w"]:
        """How probable each region is, 0 to 1."""
        ...

    def close(self) -> None: ...


class _SilhouetteSegmenter:
    """MediaPipe's selfie segmentation and the rules for head, neck and torso."""

    def __init__(self, model: str) -> None:
        del model
        self._selfie: Any = mediapipe_solutions().selfie_segmentation.SelfieSegmentation(model_selection=0)
        self._rules = HeadRules()

    def regions(self, sight: Sight) -> Float[np.ndarray, "R h w"]:
        square = _resized(sight.small, (_SELFIE_PX, _SELFIE_PX))
        person = _resized(np.array(self._selfie.process(square).segmentation_mask, dtype=np.float32), sight.size)
        landmarks = sight.small_landmarks()
        if landmarks is None:
            labels = np.full(person.shape, Region.TORSO, dtype=np.uint8)
        else:
            oval = polygon_mask(landmarks, regions.FACE_OVAL, *sight.size)
            person = _speaker_only(person, oval)
            labels = self._rules.label(sight.small, person > 0.5, landmarks)
            # Outside of the silhouette the nearest label, for what lies half within it.
            np.copyto(labels, cv2.dilate(labels, np.ones((5, 5), np.uint8)), where=labels == Region.BACKGROUND)
        judged = person * (labels == np.arange(_NUM_LARGE, dtype=np.uint8)[:, None, None])
        judged[Region.BACKGROUND] = 1 - person
        return judged

    def close(self) -> None:
        self._selfie.close()


class _MulticlassSegmenter:
    """MediaPipe's selfie_multiclass: background, hair, body skin, face skin, clothes, others."""

    def __init__(self, model: str) -> None:
        if not Path(model).is_file():
            raise AssetMissing(f"parse.model: {model} is no file; give the path of selfie_multiclass_256x256.tflite")
        mediapipe_solutions()
        import mediapipe as mp

        options = mp.tasks.vision.ImageSegmenterOptions(
            base_options=mp.tasks.BaseOptions(model_asset_path=model),
            output_confidence_masks=True,
            output_category_mask=False,
        )
        self._segmenter: Any = mp.tasks.vision.ImageSegmenter.create_from_options(options)
        self._image = lambda pixels: mp.Image(image_format=mp.ImageFormat.SRGB, data=pixels)

    def regions(self, sight: Sight) -> Float[np.ndarray, "R h w"]:
        square = np.ascontiguousarray(_resized(sight.small, (_SELFIE_PX, _SELFIE_PX)))
        masks = self._segmenter.segment(self._image(square)).confidence_masks
        scene, hair, body, face, clothes, others = (_resized(np.array(mask.numpy_view()), sight.size) for mask in masks)
        neck, landmarks = body, sight.small_landmarks()
        if landmarks is not None:
            axes = FaceAxes.of(landmarks, *sight.size)
            hands = (axes.y > 3) | (np.abs(axes.x) > 1.5)
            clothes, neck = clothes + body * hands, body * ~hands
            hats = (axes.y < 1) & (np.abs(axes.x) < 1.5)
            hair, others = hair + others * hats, others * ~hats
            oval = polygon_mask(landmarks, regions.FACE_OVAL, *sight.size)
            face = np.where(oval & (hair < 0.5), 1, face)  # with glasses
        return np.stack([scene, clothes + others, neck, hair, face]).astype(np.float32)

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


class _SegformerSegmenter:
    """A SegFormer trained on the labels of CelebAMask-HQ."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import SegformerForSemanticSegmentation

        self._torch = torch
        try:
            self._model: Any = SegformerForSemanticSegmentation.from_pretrained(model).eval()
        except (OSError, ValueError) as error:
            raise AssetMissing(
                f"parse.model: SegFormer {model!r} cannot be loaded ({str(error).splitlines()[0]}); "
                "give a local folder, or allow the download"
            ) from error
        names = {int(index): str(name).lower() for index, name in self._model.config.id2label.items()}
        unknown = sorted(set(names.values()) - CELEBAMASK_REGIONS.keys())
        if unknown:
            raise AssetMissing(
                f"parse.model: {model!r} has labels that are not CelebAMask-HQ's ({', '.join(unknown)}); "
                "choose a face parsing model"
            )
        # [classes, regions]: which class adds to which region's probability
        self.to_region = np.zeros((len(names), len(Region)), dtype=np.float32)
        for index, name in names.items():
            self.to_region[index, CELEBAMASK_REGIONS[name]] = 1

    def regions(self, sight: Sight) -> Float[np.ndarray, "R h w"]:
        torch = self._torch
        image = _resized(sight.frame, (_SEGFORMER_PX, _SEGFORMER_PX)).astype(np.float32) / 255
        image = (image - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
        with torch.inference_mode():
            logits = self._model(pixel_values=torch.from_numpy(image.transpose(2, 0, 1)[None])).logits[0]
        classes = torch.softmax(logits, dim=0).numpy()
        return np.stack([_resized(plane, sight.size) for plane in np.tensordot(self.to_region.T, classes, axes=1)])

    def close(self) -> None:
        """Nothing to free."""


SEGMENTERS: dict[str, Callable[[str], Segmenter]] = {
    "mediapipe": _SilhouetteSegmenter,
    "multiclass": _MulticlassSegmenter,
    "segformer": _SegformerSegmenter,
}
"""Name in `params.yaml` -> segmenter, made from `parse.model`."""


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """At `size` (width, height), averaged where it shrinks."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    shrinks = picture.shape[1] > size[0]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _speaker_only(person: Float[np.ndarray, "h w"], oval: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Probabilities of the piece of the silhouette that holds the face, small holes filled: no bystanders, no specks."""
    person = np.where(oval, 1, person).astype(np.float32)
    inside = person > 0.5
    _, components = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    of_face = components[oval]
    if not len(of_face):
        return person
    speaker = components == np.bincount(of_face).argmax()
    _, holes, stats, _ = cv2.connectedComponentsWithStats((~speaker).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < person.size * _MAX_HOLE
    small[0] = False
    whole = speaker | small[holes]
    # The soft rim outside belongs to the speaker, what lies further off to others.
    rim = cv2.dilate(whole.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return np.where(whole, np.maximum(person, 0.51), np.where(rim & ~inside, person, 0)).astype(np.float32)
