"""Animates a portrait with speech: the sample speakers, with the truth they were made from."""

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gensync_core.artefacts import write_json, write_tensors
from gensync_core.audio.waveform import FPS, write_waveform
from gensync_core.errors import UsageError
from gensync_core.face import expression, regions
from gensync_core.face.landmarks import FaceMesh
from gensync_core.media.video import VideoWriter
from gensync_core.progress import progress
from gensync_core.samples.head_model import HeadModel, PosedHead, build_head, pose_head
from gensync_core.samples.head_motion import HeadMotion, random_motion
from gensync_core.samples.mouth_interior import draw_interior, paint_interior
from gensync_core.samples.portraits import PORTRAITS, Layers, Portrait, read_portrait, take_apart
from gensync_core.samples.speech import Speech, recorded_speech, synthetic_speech
from gensync_core.samples.triangles import texture_map

_MESH_SIZE = 768  # px at which the portrait's landmarks are found


class SampleFiles(NamedTuple):
    """What `make_sample` wrote: the video, and the truth as arrays and as JSON."""

    video: Path
    truth: Path
    truth_json: Path


class Truth(NamedTuple):
    """What a sample was made from, per frame.

    Attributes:
        landmarks_px: x, y in px of the video, z relative to the head's centre on the same scale, negative toward the camera.
        head_to_camera: pose of the canonical head frame, decimetre.
        yaw_pitch_roll_deg: the head's turn away from the portrait's own pose.
        shift: the head's movement, decimetre.
        aperture: inner-lip distance over inter-ocular distance, as `face.expression.mouth_aperture` measures it.
        mouth_width: likewise.
        blink: 0 open to 1 closed.
    """

    landmarks_px: Float[np.ndarray, "T 478 3"]
    head_to_camera: Float[np.ndarray, "T 4 4"]
    yaw_pitch_roll_deg: Float[np.ndarray, "T 3"]
    shift: Float[np.ndarray, "T 3"]
    aperture: Float[np.ndarray, "T"]
    mouth_width: Float[np.ndarray, "T"]
    blink: Float[np.ndarray, "T"]


def make_sample(
    name: str, out: Path, seconds: float | int = 22.0, size: int = 256, seed: int = 0, speech: Path | None = None
) -> SampleFiles:
    """Write a talking portrait with sound, and its truth beside it as `<stem>.truth.safetensors` and `.truth.json`.

    The same arguments give the same files.

    Args:
        name: `astronaut` or `hopper`.
        out: the video, `.mp4`.
        seconds: length; a shorter recording makes a shorter video.
        size: width and height in px, even.
        seed: of everything random: what is said, movement, blinks.
        speech: a recording to speak; without it, synthetic speech in the portrait's own voice.

    Raises:
        UsageError: there is no such portrait.
        FootageRejected: the recording holds no readable sound.
    """
    if name not in PORTRAITS:
        raise UsageError(f"no sample {name!r}; there are {', '.join(PORTRAITS)}")
    if size < 64 or size % 2:
        raise ValueError(f"size is {size}, expected an even number of at least 64 px")
    portrait = PORTRAITS[name]
    spoken = recorded_speech(speech, seconds) if speech is not None else synthetic_speech(seconds, seed, portrait.voice)
    motion = random_motion(spoken.aperture, np.random.default_rng([seed, zlib.crc32(name.encode())]))
    landmarks = find_landmarks(portrait, size)
    layers = take_apart(portrait, size, landmarks)
    model = build_head(landmarks, layers.follow)
    posed = pose_frames(model, spoken, motion)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        write_waveform(wav, spoken.samples)
        with VideoWriter(out, size, size, FPS, audio=wav) as writer, progress(f"sample {name}", len(posed)) as bar:
            for frame in draw_frames(model, layers, posed, spoken.aperture):
                writer.write(frame)
                bar.advance()
    files = SampleFiles(out, out.with_name(f"{out.stem}.truth.safetensors"), out.with_name(f"{out.stem}.truth.json"))
    origin = {"sample": name, "seed": seed, "speech": speech.name if speech else f"synthetic, voice {portrait.voice}"}
    write_tensors(files.truth, truth_of(model, posed, spoken, motion)._asdict(), {"fps": FPS, **origin})
    camera = {key: getattr(model.camera, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
    write_json(
        files.truth_json,
        {
            **origin,
            "credit": portrait.credit,
            "fps": FPS,
            "num_frames": len(posed),
            "seconds": len(posed) / FPS,
            "camera": camera,
        },
    )
    return files


def find_landmarks(portrait: Portrait, size: int) -> Float[np.ndarray, "478 3"]:
    """The portrait's face mesh in px of the video."""
    with FaceMesh() as mesh:
        face = mesh.detect(read_portrait(portrait, _MESH_SIZE))
    if face is None:
        raise RuntimeError(f"no face found in the portrait ({portrait.credit})")
    return face.landmarks * (size / _MESH_SIZE)


def pose_frames(model: HeadModel, speech: Speech, motion: HeadMotion) -> list[PosedHead]:
    """The head in every frame."""
    return [
        pose_head(
            model,
            model.fields.displacement(float(speech.aperture[frame]), float(speech.width[frame]), float(motion.blink[frame])),
            motion.yaw_pitch_roll_deg[frame],
            motion.shift[frame],
        )
        for frame in range(len(speech.aperture))
    ]


def draw_frames(
    model: HeadModel, layers: Layers, posed: list[PosedHead], aperture: Float[np.ndarray, "T"]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames of the video: the head over its mouth's interior over the plate."""
    interior = paint_interior(model)
    height, width = layers.plate.shape[:2]
    texture = (2 * model.points_px).astype(np.float32)
    plate = layers.plate.astype(np.float32)
    for head, opening in zip(posed, aperture, strict=True):
        places = texture_map(model.triangles, texture, (2 * head.points_px).astype(np.float32), 2 * height, 2 * width)
        columns, rows = cv2.split(places)
        canvas = cv2.remap(
            layers.head, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0)
        )
        draw_interior(interior, model, head, float(opening), canvas)
        small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        yield np.rint(small[..., :3] + plate * (1 - small[..., 3:] / 255)).clip(0, 255).astype(np.uint8)


def truth_of(model: HeadModel, posed: list[PosedHead], speech: Speech, motion: HeadMotion) -> Truth:
    """The truth of a sample; aperture and width are measured on its landmarks, as on any footage."""
    landmarks = np.stack(
        [np.concatenate([head.points_px, head.depth[:, None]], axis=1)[: regions.NUM_LANDMARKS] for head in posed]
    )
    poses = np.stack([head.head_to_camera for head in posed])
    px_per_decimetre = model.camera.fx / poses[:, 2, 3]
    landmarks[..., 2] = (landmarks[..., 2] - poses[:, None, 2, 3]) * px_per_decimetre[:, None]
    landmarks = landmarks.astype(np.float32)
    return Truth(
        landmarks_px=landmarks,
        head_to_camera=poses.astype(np.float32),
        yaw_pitch_roll_deg=motion.yaw_pitch_roll_deg,
        shift=motion.shift,
        aperture=expression.mouth_aperture(landmarks).astype(np.float32),
        mouth_width=expression.mouth_width(landmarks).astype(np.float32),
        blink=motion.blink,
    )
