"""Heads whose poses are known: the portraits of the sample speakers, of their own shape or on the canonical mesh.

Each is drawn by the code of `gensync_core.samples` and stored as ingest stores a clip. Shapes: T frames, V points of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gensync_core.artefacts import atomic_path, read_tensors, write_tensors
from gensync_core.audio.waveform import FPS
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.geometry.camera import Intrinsics, project, transform, unproject
from gensync_core.media.video import VideoWriter
from gensync_core.progress import progress
from gensync_core.samples.head_model import HeadModel, PosedHead, build_head, turn_head
from gensync_core.samples.head_motion import random_motion
from gensync_core.samples.portraits import PORTRAITS, take_apart
from gensync_core.samples.sample_speaker import draw_frames, find_landmarks
from gensync_core.samples.speech import Speech, synthetic_speech

SEED, CRF = 3, 10
BLINK_EVERY, BLINK = 12, (0.45, 0.95, 1.0, 0.8, 0.45, 0.15)


class KnownHead(NamedTuple):
    """A sequence and its truth.

    Attributes:
        head_to_camera: [T, 4, 4] pose of the canonical frame, decimetre.
        landmarks_px: [T, 478, 2] where the landmarks truly are.
    """

    clip: Path
    camera: Intrinsics
    head_to_camera: Float[np.ndarray, "T 4 4"]
    landmarks_px: Float[np.ndarray, "T 478 2"]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a head moves.

    Attributes:
        turns: yaw, pitch and roll in degrees and shift in dm of [T] times in seconds, [T, 6].
        speaks: whether the mouth moves.
        blinks: whether it blinks all the time, rather than now and then.
    """

    turns: Callable[[np.ndarray], np.ndarray]
    speaks: bool = True
    blinks: bool = False


def _still(times_s: np.ndarray) -> np.ndarray:
    return np.zeros((len(times_s), 6))


def _turning(times_s: np.ndarray) -> np.ndarray:
    size = np.array([15, 8, 6, 0.3, 0.15, 0.4])
    period_s = np.array([5, 3.7, 4.3, 6, 4, 7])
    return size * np.sin(2 * np.pi * times_s[:, None] / period_s + np.array([0, 0.5, 1, 0, 0, 0]))


KINDS = {"turning": Kind(_turning), "still": Kind(_still), "blinking": Kind(_still, speaks=False, blinks=True)}


def known_head(
    portrait: str, kind: str, folder: Path, *, canonical: bool = True, seconds: float = 8.0, size_px: int = 512
) -> KnownHead:
    """Draw a head, or find it in `folder` where it was drawn before.

    Args:
        portrait: key of `gensync_core.samples.PORTRAITS`.
        kind: key of `KINDS`.
        folder: where clip and truth are kept.
        canonical: the portrait on the canonical face's mesh; else with the shape that the sample speakers have.
        seconds: length.
        size_px: width and height.
    """
    shape = "canonical" if canonical else "own"
    clip = folder / f"{portrait}_{shape}_{kind}_{seconds:g}s_{size_px}.mp4"
    truth = clip.with_suffix(".safetensors")
    if not truth.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _draw(portrait, KINDS[kind], clip, truth, canonical=canonical, seconds=seconds, size_px=size_px)
    arrays, meta = read_tensors(truth)
    focal = float(meta["focal_px"])
    camera = Intrinsics(focal, focal, size_px / 2, size_px / 2, size_px, size_px)
    return KnownHead(clip, camera, arrays["head_to_camera"].astype(np.float64), arrays["landmarks_px"])


def _draw(name: str, kind: Kind, clip: Path, truth: Path, *, canonical: bool, seconds: float, size_px: int) -> None:
    portrait = PORTRAITS[name]
    found = find_landmarks(portrait, size_px)
    layers = take_apart(portrait, size_px, found)
    model = build_head(found, layers.follow)
    speech = synthetic_speech(seconds, SEED, portrait.voice)
    aperture = speech.aperture if kind.speaks else np.zeros_like(speech.aperture)
    posed = _posed(model, _surface(model, canonical=canonical), kind, speech._replace(aperture=aperture))
    with (
        atomic_path(clip) as temporary,
        VideoWriter(temporary, size_px, size_px, FPS, crf=CRF) as writer,
        progress(clip.stem, len(posed)) as bar,
    ):
        for frame in draw_frames(model, layers, posed, aperture):
            writer.write(frame)
            bar.advance()
    arrays = {
        "head_to_camera": np.stack([head.head_to_camera for head in posed]).astype(np.float32),
        "landmarks_px": np.stack([head.points_px[: len(found)] for head in posed]).astype(np.float32),
    }
    write_tensors(truth, arrays, {"focal_px": model.camera.fx})


def _surface(model: HeadModel, *, canonical: bool) -> Float[np.ndarray, "V 3"]:
    """The head's points in the camera's frame, at rest."""
    points = unproject(model.points_px, model.depth, model.camera.matrix().astype(np.float64))
    if canonical:
        face = transform(canonical_landmarks().astype(np.float64), model.head_to_camera)
        points[: len(face)] = face
    return points


def _posed(model: HeadModel, surface: np.ndarray, kind: Kind, speech: Speech) -> list[PosedHead]:
    """As `samples.head_model.pose_head`, for points of any surface."""
    K, count = model.camera.matrix().astype(np.float64), len(speech.aperture)
    rest_px = project(surface, K)
    turns = kind.turns(np.arange(count) / FPS)
    blink = random_motion(speech.aperture, np.random.default_rng(SEED)).blink
    if kind.blinks:
        blink = np.resize([*BLINK, *[0.0] * (BLINK_EVERY - len(BLINK))], count)
    width = speech.width if kind.speaks else np.zeros(count)
    posed = []
    for frame in range(count):
        moved_px = rest_px + model.fields.displacement(float(speech.aperture[frame]), float(width[frame]), float(blink[frame]))
        points = unproject(moved_px, surface[:, 2], K)
        posed.append(turn_head(model, points, turns[frame, :3], turns[frame, 3:]))
    return posed
