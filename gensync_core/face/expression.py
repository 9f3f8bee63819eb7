"""What the mouth, the eyelids and the brows do, as ratios that do not change with scale, roll or place.

Every function takes landmarks in pixels of an image (x, y, z as `face.landmarks` gives them) or in the canonical frame;
tracked footage and rendered videos are measured by the same code. Distances within the mouth or an eye are taken in the image
plane (x and y); the inter-ocular distance that divides them is taken in 3D, so that it does not shrink when the head turns.

Source: own choice; the eye aspect ratio is Soukupová and Čech's (2016).
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from gensync_core.face import regions

_BLINK_CLOSED_SHARE = 0.3  # of the open eye's aspect ratio: the mesh never closes an eye completely
_BROW_RANGE = 0.12  # of the inter-ocular distance
_GAZE_RANGE = 0.3  # of an eye's width, from the middle to where the iris rests at most

# (upper, lower) eyelid pairs, then the corners
_RIGHT_LIDS = ((160, 144), (159, 145), (158, 153))
_LEFT_LIDS = ((387, 373), (386, 374), (385, 380))

Landmarks: TypeAlias = Float[np.ndarray, "*batch 478 3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RestingFace:
    """What this speaker's eyes and brows look like at rest; left then right.

    Attributes:
        eye_openness: aspect ratio of the open eyes.
        brow_height: height of the brows over the eyes, in inter-ocular distances.
        gaze: place of the irises, in eye widths from the middle: x to the image's right, y down.
    """

    eye_openness: tuple[float, float] = (0.28, 0.28)
    brow_height: tuple[float, float] = (0.25, 0.25)
    gaze: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, landmarks: Float[np.ndarray, "T 478 3"]) -> "RestingFace":
        """Measure it over a clip: eyes by their 70th percentile (blinks do not pull it), the rest by the median."""
        left, right = np.percentile(eye_openness(landmarks), 70, axis=0)
        brow_left, brow_right = np.median(_brow_height(landmarks), axis=0)
        gaze_x, gaze_y = np.median(_gaze(landmarks), axis=0)
        return cls(
            eye_openness=(float(left), float(right)),
            brow_height=(float(brow_left), float(brow_right)),
            gaze=(float(gaze_x), float(gaze_y)),
        )


_AVERAGE_FACE = RestingFace()


def inter_ocular(landmarks: Landmarks) -> Float[np.ndarray, "*batch"]:
    """Distance of the outer eye corners in 3D, in the landmarks' unit."""
    difference = landmarks[..., regions.RIGHT_EYE_OUTER, :] - landmarks[..., regions.LEFT_EYE_OUTER, :]
    return np.asarray(np.linalg.norm(difference, axis=-1))


def mouth_aperture(landmarks: Landmarks) -> Float[np.ndarray, "*batch"]:
    """Distance of the inner lips (13-14) over the inter-ocular distance; about 0 closed, 0.3 wide open."""
    return np.asarray(_distance(landmarks, regions.UPPER_INNER_LIP, regions.LOWER_INNER_LIP) / inter_ocular(landmarks))


def mouth_width(landmarks: Landmarks) -> Float[np.ndarray, "*batch"]:
    """Distance of the mouth's corners (61-291) over the inter-ocular distance; about 0.55 at rest."""
    return np.asarray(_distance(landmarks, regions.RIGHT_MOUTH_CORNER, regions.LEFT_MOUTH_CORNER) / inter_ocular(landmarks))


def eye_openness(landmarks: Landmarks) -> Float[np.ndarray, "*batch 2"]:
    """Eye aspect ratio of the left and the right eye: mean distance of the lids over the eye's width; about 0.3 open."""
    left = _aspect_ratio(landmarks, _LEFT_LIDS, regions.LEFT_EYE_INNER, regions.LEFT_EYE_OUTER)
    right = _aspect_ratio(landmarks, _RIGHT_LIDS, regions.RIGHT_EYE_INNER, regions.RIGHT_EYE_OUTER)
    return np.stack([left, right], axis=-1)


def blink(landmarks: Landmarks, rest: RestingFace = _AVERAGE_FACE) -> Float[np.ndarray, "*batch"]:
    """How far the eyes are closed, mean of both: 0 open, 1 closed. `rest` should be measured on the same clip."""
    return np.asarray(_eye_closure(landmarks, rest).mean(axis=-1))


def upper_face(landmarks: Landmarks, rest: RestingFace = _AVERAGE_FACE) -> Float[np.ndarray, "*batch 6"]:
    """Left blink, right blink (0 to 1), left brow, right brow (up is positive), gaze x, gaze y (-1 to 1, right and down)."""
    brows = (_brow_height(landmarks) - np.array(rest.brow_height)) / _BROW_RANGE
    gaze = (_gaze(landmarks) - np.array(rest.gaze)) / _GAZE_RANGE
    values = [_eye_closure(landmarks, rest), np.clip(brows, -1, 1), np.clip(gaze, -1, 1)]
    return np.concatenate(values, axis=-1).astype(landmarks.dtype)


def _eye_closure(landmarks: np.ndarray, rest: RestingFace) -> np.ndarray:
    share = eye_openness(landmarks) / np.array(rest.eye_openness)
    return np.clip((1 - share) / (1 - _BLINK_CLOSED_SHARE), 0, 1).astype(landmarks.dtype)


def _distance(landmarks: np.ndarray, first: int, second: int) -> np.ndarray:
    return np.asarray(np.linalg.norm(landmarks[..., first, :2] - landmarks[..., second, :2], axis=-1))


def _aspect_ratio(landmarks: np.ndarray, lids: tuple[tuple[int, int], ...], inner: int, outer: int) -> np.ndarray:
    opening = np.mean([_distance(landmarks, upper, lower) for upper, lower in lids], axis=0)
    return np.asarray(opening / np.maximum(_distance(landmarks, inner, outer), 1e-6))


def _face_axes(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [.., 2] in the image: along the eyes to the image's right, and down the face."""
    right = landmarks[..., regions.LEFT_EYE_OUTER, :2] - landmarks[..., regions.RIGHT_EYE_OUTER, :2]
    right = right / np.maximum(np.linalg.norm(right, axis=-1, keepdims=True), 1e-6)
    return right, np.stack([-right[..., 1], right[..., 0]], axis=-1)


def _brow_height(landmarks: np.ndarray) -> np.ndarray:
    _, down = _face_axes(landmarks)
    heights = []
    for brow, inner, outer in (
        (regions.LEFT_EYEBROW, regions.LEFT_EYE_INNER, regions.LEFT_EYE_OUTER),
        (regions.RIGHT_EYEBROW, regions.RIGHT_EYE_INNER, regions.RIGHT_EYE_OUTER),
    ):
        eye = landmarks[..., (inner, outer), :2].mean(axis=-2)
        heights.append(((eye - landmarks[..., brow, :2].mean(axis=-2)) * down).sum(axis=-1))
    return np.stack(heights, axis=-1) / inter_ocular(landmarks)[..., None]


def _gaze(landmarks: np.ndarray) -> np.ndarray:
    right, down = _face_axes(landmarks)
    places = []
    for iris, inner, outer in (
        (regions.LEFT_IRIS, regions.LEFT_EYE_INNER, regions.LEFT_EYE_OUTER),
        (regions.RIGHT_IRIS, regions.RIGHT_EYE_INNER, regions.RIGHT_EYE_OUTER),
    ):
        offset = landmarks[..., iris[0], :2] - landmarks[..., (inner, outer), :2].mean(axis=-2)
        width = np.maximum(_distance(landmarks, inner, outer), 1e-6)[..., None]
        along, across = (offset * right).sum(-1, keepdims=True), (offset * down).sum(-1, keepdims=True)
        places.append(np.concatenate([along, across], axis=-1) / width)
    return np.mean(places, axis=0)
