"""clip.mp4 and masks.mkv -> landmarks, poses of head and body, camera, what mouth and eyes do: one row a frame, plus arrays."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pandas as pd

from gensync_core.artefacts import atomic_path, read_tensors, write_json, write_tensors
from gensync_core.errors import FootageRejected
from gensync_core.face import expression
from gensync_core.face.skin_points import FrontView, SkinFollower, SkinPoints
from gensync_core.face.torso_tracker import BodyView, TorsoTrack, body_poses, reference_frame, track_torso
from gensync_core.face.tracker import FirstTrack, Track, first_track, track
from gensync_core.geometry.rotation import matrix_to_quat
from gensync_core.media.read_ahead import map_ahead, read_ahead
from gensync_core.media.video import iter_gray, iter_labels, probe
from gensync_core.params import Params
from gensync_core.paths import Project, SpeakerPaths
from gensync_core.progress import progress


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Track one speaker's clip.

    Raises:
        FootageRejected: too many frames show no face.
    """
    paths = project.speaker(project.registry().get(speaker_id))
    clip = probe(paths.clip)
    found, _ = read_tensors(paths.landmarks)
    landmarks, confidence = found["landmarks_px"], found["confidence"]
    try:
        first = first_track(landmarks, clip.width, clip.height, params.track)
    except FootageRejected as error:
        raise FootageRejected(f"{paths.clip}: {error}") from error
    reference = reference_frame(first.head_to_camera[: params.split.num_train(clip.num_frames)])
    skin, body = _follow(paths, first, reference)
    result = track(landmarks, confidence, clip.width, clip.height, params.track, skin)
    _write(paths, result, body_poses(body, result.camera), reference, clip.fps)


def _follow(paths: SpeakerPaths, first: FirstTrack, reference: int) -> tuple[SkinPoints | None, TorsoTrack]:
    """Points of the face's skin, and the body, from where they are in the frame `reference`; one decoding for both."""

    def views(start: int = 0) -> Iterator[BodyView]:
        return map(BodyView, iter_gray(paths.clip, start), iter_labels(paths.masks, start))

    start, poses = next(views(reference)), first.head_to_camera
    follower = SkinFollower(FrontView(first.canonical_landmarks, first.camera), start.image, poses[reference])
    found: list[np.ndarray] = []

    def followed_in(pair: tuple[BodyView, np.ndarray]) -> tuple[BodyView, np.ndarray]:
        view, pose = pair
        return view, follower.follow(view.image, pose)

    seen = read_ahead(pair for pair in zip(views(), poses, strict=True))
    followed = map_ahead(followed_in, seen)
    with progress("track", len(poses)) as job, closing(seen), closing(followed):

        def passing() -> Iterator[BodyView]:
            for view, points in followed:
                found.append(points)
                yield view
                job.advance()

        body = track_torso(start, passing())
    return follower.gather(found), body


def _write(paths: SpeakerPaths, result: Track, body_to_camera: np.ndarray, reference: int, fps: float) -> None:
    rest = expression.RestingFace.of(result.landmarks_px)
    quats = matrix_to_quat(result.head_to_camera[:, :3, :3])
    translations = result.head_to_camera[:, :3, 3]
    frames = np.arange(len(quats), dtype=np.int32)
    columns = {
        "frame": frames,
        "time_s": frames / fps,
        **{name: quats[:, index] for index, name in enumerate(("qw", "qx", "qy", "qz"))},
        **{name: translations[:, index] for index, name in enumerate(("tx", "ty", "tz"))},
        "aperture": expression.mouth_aperture(result.landmarks_px),
        "mouth_width": expression.mouth_width(result.landmarks_px),
        "blink": expression.blink(result.landmarks_px, rest),
        "confidence": result.confidence,
        "interpolated": result.interpolated,
    }
    arrays = {
        "landmarks_px": result.landmarks_px,
        "head_to_camera": result.head_to_camera,
        "body_to_camera": body_to_camera,
        "upper_face": expression.upper_face(result.landmarks_px, rest),
        "canonical_landmarks": result.canonical_landmarks,
        "canonical_motion": result.canonical_motion,
        "expression_directions": result.expressions.directions,
        "expression_weights": result.expressions.weights,
    }
    camera = result.camera
    write_tensors(paths.track_arrays, arrays, {"fps": fps, "reference_frame": reference})
    with atomic_path(paths.track_table) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, index=False)
    write_json(
        paths.camera,
        {
            **{name: getattr(camera, name) for name in ("fx", "fy", "cx", "cy", "width", "height")},
            "reprojection_px": result.reprojection_px,
        },
    )
