"""From a person's silhouette and face landmarks to head, neck and torso, without a parsing network.

Everything is measured in the face's own axes: x to its right and y down its middle, both in half face heights from the centre
of the face oval, so that the forehead's edge is at y = -1 and the chin at y = 1. Above the ear lobes all of the person is head.
Below them colour decides between long hair, neck and clothes.

Source: own choice.
"""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gensync_core.face import regions
from gensync_core.face.polygons import polygon_mask
from gensync_core.face.regions import Region

_EAR_LOBE_Y = 0.3
_HEAD_REACH = 1.7  # how far hair may reach sideways
_NECK_REACH_X, _NECK_REACH_Y = 0.95, 2.4
# How far down hair may fall (y), by how much of the space beside the jaw is filled with hair; 0.75 is the nape.
_HAIR_BESIDE_JAW, _HAIR_END_Y = (0.1, 0.25, 0.4, 0.5), (0.75, 1.4, 3.0, 10.0)
_HAIR_END_UNCLEAR_Y = 1.4
_SHOULDER_Y = 0.75  # no clothes are expected above
_CHIN_SHADOW_Y = 0.1  # straight under the jaw is neck whatever its colour
_LIGHTNESS_WEIGHT = 0.4  # the neck lies in the chin's shadow: hue tells more than lightness
_NECK_HUE_LIMIT = 12.0
_NECK_LIMIT = 18.0
_HUE_TELLS, _HUE_WEIGHT = 15.0, 1.5
_SKIN_LIMIT = 24.0  # colours further from the face's than this are no skin
_DISTINCT = 14.0  # hair nearer than this to the clothes cannot be told from them
_COLOUR_MEMORY = 0.9
_NO_COLOUR = 1000.0  # far from every colour

Mask: TypeAlias = Bool[np.ndarray, "H W"]


@dataclass(frozen=True, slots=True)
class FaceAxes:
    """Coordinates of every pixel in the face's own axes (see the module), [H, W] each, and the face's height in px."""

    x: np.ndarray
    y: np.ndarray
    height_px: float

    @classmethod
    def of(cls, landmarks_px: Float[np.ndarray, "478 3"], width: int, height: int) -> "FaceAxes":
        """Axes from the chin, the forehead's edge and the face oval."""
        top, chin = landmarks_px[regions.FOREHEAD_TOP, :2], landmarks_px[regions.CHIN, :2]
        centre = (top + chin) / 2
        centre = centre + (landmarks_px[list(regions.FACE_OVAL), :2].mean(axis=0) - centre) * 0.5
        face_height = max(float(np.linalg.norm(chin - top)), 4.0)
        down = (chin - top) / max(float(np.linalg.norm(chin - top)), 1e-6)
        half = face_height / 2
        columns = ((np.arange(width) + 0.5 - centre[0]) / half).astype(np.float32)
        rows = ((np.arange(height) + 0.5 - centre[1]) / half).astype(np.float32)[:, None]
        x_down, y_down = (float(part) for part in down)
        return cls(columns * y_down - rows * x_down, columns * x_down + rows * y_down, face_height)


@dataclass(frozen=True, slots=True)
class _Colours:
    """Typical colours (Lab with lightness weighted down), and how much of the space beside the jaw hair fills."""

    skin: np.ndarray
    neck: np.ndarray
    hair: np.ndarray
    clothes: np.ndarray
    hair_beside_jaw: float


class HeadRules:
    """Labels consecutive frames; colours are remembered from frame to frame, so that labels do not flicker."""

    def __init__(self) -> None:
        self._colours: _Colours | None = None

    def label(
        self, frame: UInt8[np.ndarray, "H W 3"], person: Mask, landmarks_px: Float[np.ndarray, "478 3"]
    ) -> UInt8[np.ndarray, "H W"]:
        """Background, torso, neck, hair and face; eyes, lips and mouth are left to `polygons.paint_features`."""
        height, width = person.shape
        axes = FaceAxes.of(landmarks_px, width, height)
        oval = polygon_mask(landmarks_px, regions.FACE_OVAL, width, height)
        blur = max(3, round(axes.height_px * 0.04) | 1)
        lab = np.stack(cv2.split(cv2.cvtColor(cv2.GaussianBlur(frame, (blur, blur), 0), cv2.COLOR_RGB2LAB))).astype(np.float32)
        lab[0] *= _LIGHTNESS_WEIGHT
        colours = self._colours = self._remember(_measure(lab, person, oval, axes))
        known = colours.skin, colours.neck, colours.hair, colours.clothes
        to_skin, to_neck, to_hair, to_clothes = (_distance(lab, colour) for colour in known)
        to_neck = np.minimum(to_skin, to_neck)
        if np.linalg.norm(colours.skin[1:] - colours.clothes[1:]) > _HUE_TELLS:  # then a throat in bright light is still skin
            hue_alone = _HUE_WEIGHT * _distance(lab[1:], colours.skin[1:])
            to_neck = np.where(axes.y > _SHOULDER_Y, np.minimum(to_neck, hue_alone), to_neck)

        labels = np.where(person, Region.TORSO, Region.BACKGROUND).astype(np.uint8)
        above_lobes = person & (axes.y < _EAR_LOBE_Y) & (np.abs(axes.x) < _HEAD_REACH)
        below = person & ~above_lobes & ~oval
        labels[above_lobes] = Region.HAIR
        labels[below & _neck(axes, to_neck, to_hair, to_clothes, oval)] = Region.NECK
        labels[_long_hair(axes, above_lobes, below, (to_neck, to_hair, to_clothes), colours)] = Region.HAIR
        skin_beside = above_lobes & _near(oval, axes, 0.2) & (to_skin < 0.6 * to_hair) & (to_skin < _SKIN_LIMIT)
        labels[oval | skin_beside] = Region.FACE
        fringe = oval & (axes.y < -0.5) & (to_hair < 0.7 * to_skin)
        labels[_reached_from((labels == Region.HAIR) & (axes.y < _EAR_LOBE_Y), fringe) & fringe] = Region.HAIR  # no eyebrows
        return cv2.medianBlur(labels, 3 if max(labels.shape) < 200 else 5)

    def _remember(self, seen: _Colours) -> _Colours:
        past = self._colours
        if past is None:
            return seen
        share = 1 - _COLOUR_MEMORY
        return _Colours(
            past.skin + share * (seen.skin - past.skin),
            past.neck + share * (seen.neck - past.neck),
            past.hair + share * (seen.hair - past.hair),
            past.clothes + share * (seen.clothes - past.clothes),
            past.hair_beside_jaw + share * (seen.hair_beside_jaw - past.hair_beside_jaw),
        )


def _measure(lab: np.ndarray, person: Mask, oval: Mask, axes: FaceAxes) -> _Colours:
    cheeks = oval & (axes.y > -0.3) & (axes.y < 0.4)
    skin = _median(lab, cheeks, fallback=oval)
    crown = person & ~oval & (axes.y < -1.0) & (np.abs(axes.x) < 1.1)
    if crown.any():  # the bare forehead over the oval is not hair: of the crown take the half least like skin
        away = _distance(lab[:, crown], skin)
        crown[crown] = away >= np.median(away)
    hair = _median(lab, crown, fallback=oval)
    throat = person & ~oval & (axes.y > 1.0) & (axes.y < 1.3) & (np.abs(axes.x) < 0.4)
    neck = _median(lab, throat, fallback=oval)
    if np.linalg.norm(neck[1:] - skin[1:]) > _NECK_HUE_LIMIT:  # a collar or a beard
        neck = skin
    shoulders = person & (axes.y > 1.6) & (np.abs(axes.x) > 1.1)
    below_jaw = person & (axes.y > 1.1) & (np.abs(axes.x) > 1.1)  # in a close shot
    clothes = _median(lab, shoulders, fallback=below_jaw)
    beside_jaw = ~oval & (axes.y > 0.4) & (axes.y < 0.9) & (np.abs(axes.x) < 1.0) & (np.abs(axes.x) > 0.45)
    there = lab[:, beside_jaw & person]
    to_hair = _distance(there, hair)
    hair_like = (to_hair < _distance(there, skin)) & (to_hair < _SKIN_LIMIT)
    return _Colours(skin, neck, hair, clothes, float(hair_like.sum() / max(beside_jaw.sum(), 1)))


def _neck(axes: FaceAxes, to_neck: np.ndarray, to_hair: np.ndarray, to_clothes: np.ndarray, oval: Mask) -> Mask:
    """Skin-coloured pixels under the jaw, in one piece with the chin."""
    skin = (to_neck < to_clothes) & (to_neck < 1.2 * to_hair) & (to_neck < _NECK_LIMIT)
    near = (np.abs(axes.x) < _NECK_REACH_X) & (axes.y > _EAR_LOBE_Y) & (axes.y < _NECK_REACH_Y)
    shadow = _near(oval, axes, _CHIN_SHADOW_Y) & (axes.y > 0.8) & (np.abs(axes.x) < 0.5)
    return _reached_from(oval, (skin & near) | shadow) & ~oval


def _long_hair(
    axes: FaceAxes, above_lobes: Mask, below: Mask, distances: tuple[np.ndarray, np.ndarray, np.ndarray], colours: _Colours
) -> Mask:
    """Hair that falls beside the jaw and further: the more of it beside the jaw, the further down it may reach."""
    to_neck, to_hair, to_clothes = distances
    end = np.interp(colours.hair_beside_jaw, _HAIR_BESIDE_JAW, _HAIR_END_Y)
    if np.linalg.norm(colours.hair - colours.clothes) < _DISTINCT:
        end = min(end, _HAIR_END_UNCLEAR_Y)
    no_neck = np.abs(axes.x) > _NECK_REACH_X
    hair_like = (to_hair < to_neck) & (to_hair < _SKIN_LIMIT) & ((to_hair < to_clothes) | (axes.y < _SHOULDER_Y))
    hair_like |= (no_neck | (to_neck > _NECK_LIMIT)) & (axes.y < _SHOULDER_Y) & (to_clothes > _DISTINCT)
    falling = below & hair_like & (axes.y < end) & (np.abs(axes.x) < _HEAD_REACH)
    return _reached_from(above_lobes, falling) & falling


def _near(oval: Mask, axes: FaceAxes, distance: float) -> Mask:
    """Pixels within `distance`, in half face heights, of the face oval, and the oval."""
    radius = max(1, round(axes.height_px / 2 * distance))
    return cv2.dilate(oval.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)) > 0


def _reached_from(seed: Mask, mask: Mask) -> Mask:
    """The parts of `mask` that touch `seed`, small holes closed."""
    joined = cv2.morphologyEx((seed | mask).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    _, components = cv2.connectedComponents(joined, connectivity=4)
    numbers = np.asarray(components, dtype=np.intp)
    touched = np.zeros(int(numbers.max()) + 1, dtype=bool)
    touched[numbers[seed]] = True
    touched[0] = False
    return touched[numbers] & ~seed


def _distance(lab: Float[np.ndarray, "C *pixels"], colour: Float[np.ndarray, "C"]) -> Float[np.ndarray, "*pixels"]:
    squares = sum(np.square(plane - np.float32(value)) for plane, value in zip(lab, colour, strict=True))
    return np.sqrt(squares)


def _median(lab: np.ndarray, mask: Mask, fallback: Mask) -> np.ndarray:
    chosen = mask if mask.sum() >= 8 else fallback
    if not chosen.any():
        return np.full(3, _NO_COLOUR, dtype=np.float32)
    return np.median(lab[:, chosen], axis=1)
