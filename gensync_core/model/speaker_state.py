"""All that is a speaker's own: Gaussians, identity code, aligner, plate, camera, and a take of natural head motion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.artefacts import read_tensors, write_tensors
from gensync_core.errors import ArtefactBroken
from gensync_core.face.canonical import CANONICAL_BOX_DM
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.geometry.camera import Intrinsics
from gensync_core.geometry.motion import Motion

_ARRAYS = ("identity", "torso_centre", "mean_pose")
"""Tensors of a state that a file holds under their own names."""


@dataclass(frozen=True, slots=True)
class Aligner:
    """Maps a speaker's canonical frame (dm) into the one canonical box [-1, 1]^3: box = x * scale + offset, per axis.

    Because the landmarks of every speaker are matched to the same mesh, a mouth is at the same place for everybody.
    """

    scale: Float[Tensor, "3"]
    offset: Float[Tensor, "3"]

    def to_box(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Positions into the box."""
        return torch.addcmul(self.offset, points, self.scale)

    def motion_from_box(self, motion: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Displacements back into decimetre."""
        return motion / self.scale

    def motion_to_box(self, motion: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Displacements in decimetre into the box."""
        return motion * self.scale


def fit_aligner(landmarks: Float[np.ndarray, "P 3"], mesh: Float[np.ndarray, "P 3"]) -> Aligner:
    """Least squares per axis from a speaker's mean landmarks to the canonical mesh, then into the canonical box."""
    centred, target = landmarks - landmarks.mean(0), mesh - mesh.mean(0)
    scale = (centred * target).sum(0) / np.maximum((centred**2).sum(0), 1e-9)
    offset = mesh.mean(0) - landmarks.mean(0) * scale
    return Aligner(
        torch.tensor(scale / CANONICAL_BOX_DM, dtype=torch.float32),
        torch.tensor(offset / CANONICAL_BOX_DM, dtype=torch.float32),
    )


@dataclass(slots=True)
class SpeakerState:
    """One speaker as the shared network needs them. Tensors may be trained in place.

    Attributes:
        head: Gaussians in the canonical frame.
        torso: Gaussians in the camera's frame.
        identity: the code z [Z].
        torso_centre, torso_half_size: the torso's own box in the camera's frame (dm).
        plate: background [H, W, 3] in 0..1.
        mean_pose: head_to_camera of the reference frame, which the torso's Gaussians lie as in.
        take: motion in the training part of the clip.
        meta: speaker id, group, figures of the training that made it.
    """

    head: GaussianCloud
    torso: GaussianCloud
    identity: Float[Tensor, "Z"]
    aligner: Aligner
    torso_centre: Float[Tensor, "3"]
    torso_half_size: float
    plate: Float[Tensor, "H W 3"]
    camera: Intrinsics
    mean_pose: Float[Tensor, "4 4"]
    take: Motion
    meta: dict[str, Any]

    def freeze(self) -> None:
        """End a training: all tensors become plain values."""
        self.head, self.torso, self.identity = self.head.detach(), self.torso.detach(), self.identity.detach()
        self.aligner = Aligner(self.aligner.scale.detach(), self.aligner.offset.detach())

    def save(self, path: Path) -> None:
        """Write everything into one file; raises nothing of its own."""
        arrays = self.head.to_arrays("head.") | self.torso.to_arrays("torso.")
        for name in _ARRAYS:
            arrays[name] = getattr(self, name).detach().cpu().numpy()
        for name, part in self.take._asdict().items():
            arrays[f"take.{name}"] = part.cpu().numpy()
        arrays["aligner.scale"] = self.aligner.scale.detach().cpu().numpy()
        arrays["aligner.offset"] = self.aligner.offset.detach().cpu().numpy()
        arrays["plate"] = (self.plate.cpu().numpy() * 255).round().astype(np.uint8)
        camera = {name: getattr(self.camera, name) for name in ("fx", "fy", "cx", "cy", "width", "height")}
        write_tensors(path, arrays, {**self.meta, "camera": camera, "torso_half_size": self.torso_half_size})

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "SpeakerState":
        """Read a speaker.

        Raises:
            ArtefactBroken: missing, damaged or incomplete.
        """
        arrays, meta = read_tensors(path)
        try:
            tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
            return cls(
                head=GaussianCloud.from_arrays(arrays, "head.").to(device),
                torso=GaussianCloud.from_arrays(arrays, "torso.").to(device),
                aligner=Aligner(tensors["aligner.scale"], tensors["aligner.offset"]),
                plate=tensors["plate"].float() / 255,
                take=Motion(*(tensors[f"take.{name}"] for name in Motion._fields)),
                camera=Intrinsics(**meta.pop("camera")),
                torso_half_size=float(meta.pop("torso_half_size")),
                meta=meta,
                **{name: tensors[name] for name in _ARRAYS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactBroken(f"{path}: not a speaker file ({error}); run joint or adapt again") from error
