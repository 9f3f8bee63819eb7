"""One speaker's clip as training sees it: frames and masks read lazily, everything per frame as tensors.

Shapes: T frames of the clip, S silent frames, B chosen frames, H = W = resolution, D feature size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from gensync_core.artefacts import read_json, read_tensors
from gensync_core.dataset.split_params import SplitParams
from gensync_core.errors import ArtefactBroken
from gensync_core.geometry.camera import Intrinsics
from gensync_core.geometry.motion import Motion
from gensync_core.media.frames import FrameStore
from gensync_core.paths import SpeakerPaths


class Frame(NamedTuple):
    """One frame and its segmentation."""

    image: Float[Tensor, "H W 3"]
    labels: UInt8[Tensor, "H W"]


@dataclass(frozen=True, slots=True)
class ClipDataset:
    """A speaker's clip.

    Attributes:
        head_to_camera: poses [T, 4, 4].
        body_to_camera: where the body of the reference frame is seen [T, 4, 4]; see `face.torso_tracker.body_poses`.
        reference_frame: the training frame nearest to the mean head pose.
        upper_face: eyes and brows [T, 6].
        landmarks_px: [T, 478, 3]; canonical_landmarks: mean shape [478, 3] dm; canonical_motion: [T, 478, 3] dm.
        aperture: mouth opening over eye distance [T].
        features: speech features [T, D], cut to the clip's length; silence: those of half a minute of silence [S, D].
        plate: background [H, W, 3] in 0..1.
        num_train: frames 0 .. num_train - 1 are for training.
    """

    frames: FrameStore
    masks: FrameStore
    camera: Intrinsics
    head_to_camera: Float[Tensor, "T 4 4"]
    body_to_camera: Float[Tensor, "T 4 4"]
    reference_frame: int
    upper_face: Float[Tensor, "T 6"]
    landmarks_px: Float[Tensor, "T 478 3"]
    canonical_landmarks: Float[Tensor, "478 3"]
    canonical_motion: Float[Tensor, "T 478 3"]
    aperture: Float[np.ndarray, "T"]
    features: Float[Tensor, "T D"]
    silence: Float[Tensor, "S D"]
    plate: Float[Tensor, "H W 3"]
    num_train: int

    @classmethod
    def open(cls, paths: SpeakerPaths, scratch: Path, split: SplitParams) -> "ClipDataset":
        """Open what preprocessing wrote for a speaker.

        Raises:
            ArtefactBroken: files are missing, damaged or of unequal length.
        """
        track, track_meta = read_tensors(paths.track_arrays)
        audio, _ = read_tensors(paths.audio)
        for path, arrays, name in ((paths.track_arrays, track, "body_to_camera"), (paths.audio, audio, "silence")):
            if name not in arrays:
                raise ArtefactBroken(f"{path}: written by an older version; run the stage that writes it again")
        camera = read_json(paths.camera)
        table = pd.read_parquet(paths.track_table)
        frames = FrameStore.open(paths.clip, scratch)
        masks = FrameStore.open(paths.masks, scratch, gray=True)
        lengths = {
            "clip": len(frames),
            "masks": len(masks),
            "track": len(track["head_to_camera"]),
            "audio": len(audio["features"]),
        }
        if len(set(lengths.values())) != 1:
            raise ArtefactBroken(f"{paths.folder}: lengths differ ({lengths} frames); run ingest and what follows again")
        plate = np.asarray(Image.open(paths.background).convert("RGB"), dtype=np.float32) / 255
        return cls(
            frames=frames,
            masks=masks,
            camera=Intrinsics(**{name: camera[name] for name in ("fx", "fy", "cx", "cy", "width", "height")}),
            head_to_camera=torch.from_numpy(track["head_to_camera"]),
            body_to_camera=torch.from_numpy(track["body_to_camera"]),
            reference_frame=int(track_meta["reference_frame"]),
            upper_face=torch.from_numpy(track["upper_face"]),
            landmarks_px=torch.from_numpy(track["landmarks_px"]),
            canonical_landmarks=torch.from_numpy(track["canonical_landmarks"]),
            canonical_motion=torch.from_numpy(track["canonical_motion"]),
            aperture=table["aperture"].to_numpy(dtype=np.float32),
            features=torch.from_numpy(audio["features"]),
            silence=torch.from_numpy(audio["silence"]),
            plate=torch.from_numpy(plate),
            num_train=split.num_train(len(frames)),
        )

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return len(self.frames)

    @property
    def motion(self) -> Motion:
        """What head, body and upper face do in all frames."""
        return Motion(self.head_to_camera, self.body_to_camera, self.upper_face)

    def frame(self, index: int) -> Frame:
        """Decode nothing, copy one frame out of the frame store."""
        image = torch.from_numpy(np.array(self.frames[index])).float() / 255
        return Frame(image, torch.from_numpy(np.array(self.masks[index])))

    def mouth_box_px(self, index: int, margin: float = 0.6) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 around the lips with `margin` times their width added on every side, inside the frame."""
        return mouth_box(self.landmarks_px[index].numpy(), self.camera.width, self.camera.height, margin)


_MOUTH_CORNERS = (61, 291)


def mouth_box(
    landmarks_px: Float[np.ndarray, "478 3"], width: int, height: int, margin: float = 0.6
) -> tuple[int, int, int, int]:
    """Square box around the mouth's corners: x0, y0, x1, y1 in px, at least 8 px wide."""
    left, right = landmarks_px[_MOUTH_CORNERS[0], :2], landmarks_px[_MOUTH_CORNERS[1], :2]
    centre = (left + right) / 2
    half = max(float(np.linalg.norm(right - left)) * (0.5 + margin), 4.0)
    x0, y0 = np.floor(centre - half).astype(int)
    x1, y1 = np.ceil(centre + half).astype(int)
    return max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1))


def balanced_weights(aperture: Float[np.ndarray, "T"], bins: int = 5) -> Float[np.ndarray, "T"]:
    """Probability of each frame such that closed and open mouths are seen equally often."""
    low, high = np.quantile(aperture, [0.02, 0.98])
    bin_of = np.clip(((aperture - low) / max(high - low, 1e-6) * bins).astype(int), 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    weights = 1.0 / counts[bin_of]
    return weights / weights.sum()
