"""Watches the speaker's mouth frame by frame in a part of the footage: place, turn, colour, motion, how late the sound is.

At most `WATCHED_S` are watched, where most is spoken in each third of the footage: the face mesh costs 5 to 20 ms a frame.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gensync_core.face import regions
from gensync_core.face.expression import mouth_aperture
from gensync_core.face.landmarks import FaceMesh
from gensync_core.footage.findings import FaceBox, Footage
from gensync_core.footage.sound_offset import SoundOffset, WatchedSpeech, measure_offset, mouth_distances
from gensync_core.media.clip_cutting import FPS
from gensync_core.media.stretch import Stretch, View, stretch_frames, stretch_sound
from gensync_core.progress import Progress, progress

WATCHED_S: Final = 60.0

Spans = Sequence[tuple[float, float]]

_NUM_STRETCHES: Final = 3
_AT_ONCE: Final = 2
_STEP_S: Final = 1.0
_FACE_PX: Final = 240  # the mesh looks at 192 px
_MOST_PX: Final = 1024
_ROOM: Final = 0.5  # around all of the face's boxes, over the median face's height
_MESH: Final = slice(regions.NUM_MESH_LANDMARKS)

_PATCH_PX: Final = 96
_PATCH_EYES_PX: Final = 44
_PATCH_EYES_AT: Final = (48.0, 28.0)
_AROUND_MOUTH: Final = (200, 199, 164, 2, 432, 212)  # chin, upper lip, beside the corners
_CHEEKS: Final = (50, 280, 205, 425)
_SPOT_PX: Final = 3
_NEUTRAL: Final = 128.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MouthFacts:
    """One value for each watched frame, 25 a second; NaN where no face was followed.

    Attributes:
        times_s: after the footage's first picture.
        yaw_deg: turn of the head to the side, 0: toward the camera.
        pitch_deg: turn up or down, negative: down; people who face the camera have -20 to 23.
        beyond: how far the face reaches past the picture's border, over its height; negative: room that is left.
        lip_redness: a* (CIELAB) of the lips over that of the skin around the mouth.
        skin_chroma: CIELAB chroma of the cheeks: next to 0 in black and white footage.
        aperture: distance of the inner lips over the inter-ocular distance.
        spoken: whether speech is heard.
        sampled_s: times of the sampled frames that show a face, over the whole footage.
        sampled_beyond: `beyond` of the detected box in these.
        offset: how late the sound is; None: too little was seen and heard to say.
    """

    times_s: Float[np.ndarray, "T"]
    yaw_deg: Float[np.ndarray, "T"]
    pitch_deg: Float[np.ndarray, "T"]
    beyond: Float[np.ndarray, "T"]
    lip_redness: Float[np.ndarray, "T"]
    skin_chroma: Float[np.ndarray, "T"]
    aperture: Float[np.ndarray, "T"]
    spoken: Bool[np.ndarray, "T"]
    sampled_s: Float[np.ndarray, "S"]
    sampled_beyond: Float[np.ndarray, "S"]
    offset: SoundOffset | None


class _Look(NamedTuple):
    yaw_deg: float
    pitch_deg: float
    beyond: float
    lip_redness: float
    skin_chroma: float
    aperture: float


_UNSEEN: Final = _Look(*[float("nan")] * len(_Look._fields))


def scan_mouth(footage: Footage, speech: Spans) -> MouthFacts:
    """Watch the mouth of the largest face.

    Args:
        footage: with its sampled faces.
        speech: (start, end) of each span in which speech is heard, seconds after the footage's first picture, in order.

    Raises:
        FootageRejected: decoding fails.
    """
    looks: list[_Look] = []
    times_s: list[float] = []
    heard: list[WatchedSpeech] = []
    chosen = _stretches(footage.probe.video_duration_s, speech)
    with progress(f"mouth {footage.path.name}", max(sum(one.num_frames for one in chosen), 1)) as bar:
        for stretch in chosen:
            watched = _watch(footage, stretch, bar)
            if watched:
                looks += [look for look, _ in watched]
                times_s += [stretch.start_s + index / FPS for index in range(len(watched))]
                samples = stretch_sound(footage.path, footage.probe, stretch._replace(num_frames=len(watched)))
                heard.append(WatchedSpeech(np.array([distances for _, distances in watched]), samples))
    seen = [sample for sample in footage.samples if sample.faces]
    values = np.array(looks, dtype=np.float64).reshape(len(looks), len(_Look._fields))
    times = np.array(times_s, dtype=np.float64)
    return MouthFacts(
        times_s=times,
        **{name: values[:, column] for column, name in enumerate(_Look._fields)},
        spoken=np.array([any(start <= time < end for start, end in speech) for time in times], dtype=bool),
        sampled_s=np.array([sample.time_s for sample in seen], dtype=np.float64),
        sampled_beyond=np.array([_box_beyond(sample.faces[0], footage) for sample in seen], dtype=np.float64),
        offset=measure_offset(heard),
    )


def _watch(footage: Footage, stretch: Stretch, bar: Progress) -> list[tuple[_Look, Float[np.ndarray, "9"]]]:
    """What each frame of a stretch shows; nothing where no face was sampled. Two meshes share the frames."""
    view = view_of(footage, stretch)
    if view is None:
        bar.advance(stretch.num_frames)
        return []

    def watch(part: Stretch) -> list[tuple[_Look, np.ndarray]]:
        seen = []
        with FaceMesh() as mesh:
            for frame in stretch_frames(footage.path, footage.probe, part, view):
                seen.append(_look(mesh, frame, footage, view))
                bar.advance()
        return seen

    with ThreadPoolExecutor(_AT_ONCE) as workers:
        return list(itertools.chain.from_iterable(workers.map(watch, _parts(stretch))))


def _parts(stretch: Stretch) -> list[Stretch]:
    """Equal parts, to be watched at the same time."""
    ends = np.linspace(0, stretch.num_frames, _AT_ONCE + 1).astype(int)
    return [Stretch(stretch.start_s + first / FPS, int(end - first)) for first, end in itertools.pairwise(ends)]


def _stretches(duration_s: float, speech: Spans) -> list[Stretch]:
    """The whole of short footage; else from each third the piece in which most is spoken."""
    if duration_s <= WATCHED_S:
        return [Stretch(0.0, int(duration_s * FPS))]
    third_s, piece_s = duration_s / _NUM_STRETCHES, WATCHED_S / _NUM_STRETCHES
    chosen = []
    for index in range(_NUM_STRETCHES):
        starts = np.arange(index * third_s, (index + 1) * third_s - piece_s + 1e-6, _STEP_S)
        spoken = [_overlap_s(start, start + piece_s, speech) for start in starts]
        chosen.append(Stretch(float(starts[int(np.argmax(spoken))]), int(piece_s * FPS)))
    return chosen


def _overlap_s(start_s: float, end_s: float, spans: Spans) -> float:
    return sum(max(0.0, min(end_s, end) - max(start_s, start)) for start, end in spans)


def view_of(footage: Footage, stretch: Stretch) -> View | None:
    """A box around all places where the face was sampled in a stretch, scaled so that the face has `_FACE_PX` or less."""
    within = (stretch.start_s - _STEP_S, stretch.start_s + stretch.duration_s + _STEP_S)
    faces = [s.faces[0] for s in footage.samples if s.faces and within[0] <= s.time_s <= within[1]]
    if not faces:
        return None
    found = footage.probe
    height_px = float(np.median([face.h for face in faces]))
    room_px = _ROOM * height_px
    left = max(int(min(face.x for face in faces) - room_px), 0)
    top = max(int(min(face.y for face in faces) - room_px), 0)
    right = min(int(max(face.x + face.w for face in faces) + room_px), found.width)
    bottom = min(int(max(face.y + face.h for face in faces) + room_px), found.height)
    if right - left < 2 or bottom - top < 2:
        return None
    scale = min(1.0, _FACE_PX / max(height_px, 1.0), _MOST_PX / max(right - left, bottom - top))
    size = max(round((right - left) * scale), 2), max(round((bottom - top) * scale), 2)
    return View(left, top, right - left, bottom - top, *size)


def _look(
    mesh: FaceMesh, frame: UInt8[np.ndarray, "H W 3"], footage: Footage, view: View
) -> tuple[_Look, Float[np.ndarray, "9"]]:
    face = mesh.detect(frame)
    if face is None:
        return _UNSEEN, np.full(9, np.nan)
    landmarks = face.landmarks.astype(np.float64)
    scale = np.array([view.width / view.scaled_width, view.height / view.scaled_height])
    places = landmarks[_MESH, :2] * scale + np.array([view.x, view.y])
    low, high = places.min(axis=0), places.max(axis=0)
    box = FaceBox(float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
    redness, chroma = _colours(frame, landmarks)
    yaw_deg, pitch_deg = _turn(landmarks)
    aperture = float(mouth_aperture(landmarks))
    return _Look(yaw_deg, pitch_deg, _box_beyond(box, footage), redness, chroma, aperture), mouth_distances(landmarks)


def _box_beyond(box: FaceBox, footage: Footage) -> float:
    right, bottom = footage.probe.width - box.x - box.w, footage.probe.height - box.y - box.h
    return -min(box.x, box.y, right, bottom) / max(box.h, 1.0)


def _turn(landmarks: Float[np.ndarray, "478 3"]) -> tuple[float, float]:
    """Yaw and pitch in degrees of the plane through eye corners, forehead and chin."""
    across = landmarks[regions.LEFT_EYE_OUTER] - landmarks[regions.RIGHT_EYE_OUTER]
    down = landmarks[regions.CHIN] - landmarks[regions.FOREHEAD_TOP]
    normal = np.cross(across, down)
    normal /= max(float(np.linalg.norm(normal)), 1e-9)
    return float(np.degrees(np.arctan2(normal[0], normal[2]))), float(np.degrees(np.arcsin(normal[1])))


def _colours(frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "478 3"]) -> tuple[float, float]:
    """Redness of the lips over the skin around them, and chroma of the cheeks, in CIELAB."""
    right, left = landmarks[regions.RIGHT_EYE_OUTER, :2], landmarks[regions.LEFT_EYE_OUTER, :2]
    centre, across = (right + left) / 2, left - right
    scale = _PATCH_EYES_PX / max(float(np.linalg.norm(across)), 1.0)
    upright = cv2.getRotationMatrix2D(
        (float(centre[0]), float(centre[1])), float(np.degrees(np.arctan2(across[1], across[0]))), scale
    )
    upright[:, 2] += np.array(_PATCH_EYES_AT) - centre
    patch = cv2.warpAffine(frame, upright, (_PATCH_PX, _PATCH_PX), flags=cv2.INTER_AREA)
    lab = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB).astype(np.float64)
    places = landmarks[:, :2] @ upright[:, :2].T + upright[:, 2]
    outer, inner = _filled(places, regions.LIPS_OUTER), _filled(places, regions.LIPS_INNER)
    around, cheeks = _spots(places, _AROUND_MOUTH) & ~outer, _spots(places, _CHEEKS)
    lips = outer & ~inner
    if not lips.any() or not around.any() or not cheeks.any():
        return float("nan"), float("nan")
    chroma = np.linalg.norm(lab[cheeks, 1:].mean(axis=0) - _NEUTRAL)
    return float(lab[lips, 1].mean() - lab[around, 1].mean()), float(chroma)


def _filled(places: np.ndarray, ring: Sequence[int]) -> Bool[np.ndarray, "H W"]:
    mask = np.zeros((_PATCH_PX, _PATCH_PX), dtype=np.uint8)
    cv2.fillPoly(mask, [np.rint(places[list(ring)]).astype(np.int32)], 1)
    return mask.astype(bool)


def _spots(places: np.ndarray, points: Sequence[int]) -> Bool[np.ndarray, "H W"]:
    mask = np.zeros((_PATCH_PX, _PATCH_PX), dtype=bool)
    for x, y in np.rint(places[list(points)]).astype(int):
        mask[max(y - _SPOT_PX, 0) : max(y + _SPOT_PX + 1, 0), max(x - _SPOT_PX, 0) : max(x + _SPOT_PX + 1, 0)] = True
    return mask
