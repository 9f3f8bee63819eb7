"""The two portraits: public domain, inside packages that the install brings, with outlines drawn by hand.

- astronaut: Eileen Collins, NASA, from scikit-image.
- hopper: Grace Hopper, United States Navy, from matplotlib.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gensync_core.face import regions

_OUTLINE_UNITS = 1024.0
_PLATE_MARGIN = 0.012  # of the image: hair that sticks out of the outline
_INPAINT_RADIUS = 0.015
_FEATHER = 0.0025
_STILL = 0.02  # what follows the head less than this stays in the plate
_LIP_MARGIN = 0.008  # of the image: teeth that shine over the lips' edge
_TEETH_BRIGHTNESS, _TEETH_WHITENESS = 130.0, 0.72  # brightest channel; darkest over brightest
_EDGE_WIDTH, _EDGE_SHADOW = 0.006, 0.4


@dataclass(frozen=True, kw_only=True, slots=True)
class Portrait:
    """One portrait and what is drawn on it. Outlines are in 1/1024 of the crop.

    Attributes:
        read: gives the whole picture, uint8 RGB.
        crop: x, y and size of the square that is shown, px of the picture.
        head: outline of hair or hat, ears and jaw.
        neck: outline of what follows the head less and less toward its lower end; overlaps the head.
        neck_length: distance from the head at which nothing moves any more.
        voice: key of `formant_synthesis.VOICES`.
        credit: where the picture is from.
    """

    read: Callable[[], np.ndarray]
    crop: tuple[int, int, int]
    head: tuple[tuple[int, int], ...]
    neck: tuple[tuple[int, int], ...]
    neck_length: int
    voice: str
    credit: str


def _read_astronaut() -> np.ndarray:
    import skimage.data

    return skimage.data.astronaut()


def _read_hopper() -> np.ndarray:
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


PORTRAITS = {
    "astronaut": Portrait(
        read=_read_astronaut,
        crop=(99, 0, 256),
        head=(
            *((400, 668), (366, 634), (344, 600), (334, 560), (326, 530), (302, 514), (284, 480), (254, 446), (228, 392)),
            *((217, 320), (220, 262), (238, 222), (272, 188), (326, 152), (366, 122), (432, 88), (510, 64), (562, 64)),
            *((640, 86), (716, 128), (764, 184), (796, 250), (810, 326), (806, 392), (790, 440), (754, 488), (722, 518)),
            *(
                (712, 540),
                (690, 549),
                (676, 545),
                (668, 580),
                (652, 618),
                (632, 648),
                (596, 680),
                (556, 704),
                (500, 716),
                (446, 702),
            ),
        ),
        neck=(
            (346, 590),
            (348, 700),
            (352, 760),
            (390, 850),
            (480, 880),
            (590, 850),
            (622, 760),
            (626, 680),
            (660, 600),
            (500, 560),
        ),
        neck_length=140,
        voice="a",
        credit="Eileen Collins, NASA, public domain (scikit-image)",
    ),
    "hopper": Portrait(
        read=_read_hopper,
        crop=(16, 0, 480),
        head=(
            *(
                (416, 676),
                (384, 634),
                (340, 600),
                (316, 560),
                (308, 500),
                (296, 470),
                (292, 412),
                (300, 390),
                (290, 340),
                (289, 250),
            ),
            *(
                (294, 214),
                (312, 190),
                (340, 180),
                (352, 142),
                (384, 106),
                (428, 88),
                (440, 68),
                (478, 52),
                (515, 47),
                (560, 52),
            ),
            *(
                (596, 70),
                (612, 88),
                (660, 104),
                (700, 134),
                (722, 184),
                (746, 190),
                (758, 240),
                (762, 300),
                (756, 384),
                (770, 404),
            ),
            *(
                (764, 462),
                (746, 524),
                (738, 580),
                (716, 642),
                (690, 655),
                (668, 648),
                (648, 682),
                (600, 702),
                (542, 716),
                (490, 712),
            ),
            *((446, 696),),
        ),
        neck=(
            (384, 620),
            (396, 672),
            (408, 730),
            (432, 790),
            (486, 862),
            (546, 874),
            (590, 850),
            (640, 770),
            (664, 690),
            (672, 640),
        ),
        neck_length=150,
        voice="b",
        credit="Grace Hopper, United States Navy, public domain (matplotlib)",
    ),
}


class Layers(NamedTuple):
    """A portrait taken apart, at `size` px; the head at twice that, so that moving it loses no detail.

    Attributes:
        head: premultiplied RGBA of head and neck.
        plate: body and background, with what the head hides filled in.
        follow: per pixel (at `size`), how far it follows the head: 1 in the head, 0 from the lower end of the neck on.
    """

    head: UInt8[np.ndarray, "H2 W2 4"]
    plate: UInt8[np.ndarray, "H W 3"]
    follow: Float[np.ndarray, "H W"]


def read_portrait(portrait: Portrait, size: int) -> UInt8[np.ndarray, "H W 3"]:
    """The crop, resampled to `size` px."""
    x, y, extent = portrait.crop
    crop = portrait.read()[y : y + extent, x : x + extent]
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if size < extent else cv2.INTER_CUBIC)


def take_apart(portrait: Portrait, size: int, landmarks: Float[np.ndarray, "478 3"]) -> Layers:
    """Cut the head out of the portrait and fill the hole. `landmarks` are those of the portrait at `size` px."""
    fine = 2 * size
    head_cover, neck_cover = _fill(_scaled(portrait.head, fine), fine), _fill(_scaled(portrait.neck, fine), fine)
    matte = cv2.GaussianBlur(np.maximum(head_cover, neck_cover), (0, 0), max(_FEATHER * fine, 0.6))
    color = _without_teeth(read_portrait(portrait, fine), 2 * landmarks[:, :2])
    head = np.dstack([color * matte[..., None], 255 * matte])

    head_cover, neck_cover = _fill(_scaled(portrait.head, size), size), _fill(_scaled(portrait.neck, size), size)
    distance = cv2.distanceTransform((head_cover < 0.5).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = np.clip(distance / (portrait.neck_length / _OUTLINE_UNITS * size), 0, 1)
    follow = 1 - share * share * (3 - 2 * share)
    hole = _grow(head_cover > 0, _PLATE_MARGIN * size) | ((neck_cover > 0) & (follow > _STILL))
    plate = cv2.inpaint(
        read_portrait(portrait, size), hole.astype(np.uint8), max(_INPAINT_RADIUS * size, 2.0), cv2.INPAINT_TELEA
    )
    return Layers(np.rint(head).astype(np.uint8), plate, follow.astype(np.float32))


def _without_teeth(image: np.ndarray, landmarks_px: np.ndarray) -> np.ndarray:
    """The portrait with lips where it shows teeth: they are painted anew behind the lips, which would carry them along.

    The inner edge of the lips is darkened, as it lies in the mouth's shadow.
    """
    size = len(image)
    inner = landmarks_px[list(regions.LIPS_INNER)]
    brightest, darkest = image.max(axis=2).astype(np.float32), image.min(axis=2).astype(np.float32)
    white = (brightest > _TEETH_BRIGHTNESS) & (darkest > _TEETH_WHITENESS * brightest)
    teeth = _grow(white & _grow(_fill(inner, size) > 0, _LIP_MARGIN * size), 1.0) & _grow(
        _fill(inner, size) > 0, 1.2 * _LIP_MARGIN * size
    )
    lips = cv2.inpaint(image, teeth.astype(np.uint8), _LIP_MARGIN * size, cv2.INPAINT_TELEA).astype(np.float32)
    edge = np.zeros((size, size), dtype=np.uint8)
    thickness = max(round(_EDGE_WIDTH * size), 1)
    cv2.polylines(edge, [np.rint((inner - 0.5) * 16).astype(np.int32)], True, 255, thickness, cv2.LINE_AA, 4)
    shadow = cv2.GaussianBlur(edge, (0, 0), max(0.5 * thickness, 0.6)).astype(np.float32) / 255
    return lips * (1 - _EDGE_SHADOW * shadow[..., None])


def _grow(mask: np.ndarray, radius_px: float) -> np.ndarray:
    reach = 2 * max(round(radius_px), 1) + 1
    return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) > 0


def _scaled(outline: tuple[tuple[int, int], ...], size: int) -> np.ndarray:
    return np.array(outline, dtype=np.float64) / _OUTLINE_UNITS * size


def _fill(outline_px: np.ndarray, size: int) -> np.ndarray:
    """Coverage of a polygon, float32 0 to 1."""
    shift = 4
    mask = np.zeros((size, size), dtype=np.uint8)
    cv2.fillPoly(mask, [np.rint((outline_px - 0.5) * 2**shift).astype(np.int32)], 255, cv2.LINE_AA, shift)
    return mask.astype(np.float32) / 255
