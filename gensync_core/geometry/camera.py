"""Pinhole cameras without distortion, and rigid poses. OpenCV axes; pixel centres at +0.5."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from gensync_core.geometry.arrays import Array, stack


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A camera in pixels of its image: focal lengths, principal point, size."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """K, float32."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float32)

    def scaled(self, width: int, height: int) -> "Intrinsics":
        """The same camera with its image resized."""
        x, y = width / self.width, height / self.height
        return Intrinsics(self.fx * x, self.fy * y, self.cx * x, self.cy * y, width, height)


def project(points: Array, K: Array) -> Array:
    """Pixels [.., 2] of points [.., 3] in the camera's frame; z must be positive."""
    homogeneous = points @ _transposed(K)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def unproject(pixels: Array, depth: Array, K: Array) -> Array:
    """Points [.., 3] in the camera's frame at `depth` [..] along z that project to `pixels` [.., 2]."""
    focal, centre = (K[0, 0], K[1, 1]), (K[0, 2], K[1, 2])
    x = (pixels[..., 0] - centre[0]) / focal[0] * depth
    y = (pixels[..., 1] - centre[1]) / focal[1] * depth
    return stack([x, y, depth])


def transform(points: Array, pose: Array) -> Array:
    """Points [.., N, 3] moved by poses [.., 4, 4]."""
    return points @ _transposed(pose[..., :3, :3]) + pose[..., None, :3, 3]


def pose_matrix(rotation: Float[np.ndarray, "*batch 3 3"], translation: Float[np.ndarray, "*batch 3"]) -> np.ndarray:
    """Poses [.., 4, 4] from rotations and translations."""
    pose = np.zeros((*rotation.shape[:-2], 4, 4), dtype=rotation.dtype)
    pose[..., :3, :3], pose[..., :3, 3], pose[..., 3, 3] = rotation, translation, 1
    return pose


def invert_pose(pose: Array) -> Array:
    """Inverse of rigid poses [.., 4, 4]."""
    inverse: Any = pose * 0
    rotation = _transposed(pose[..., :3, :3])
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ pose[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def _transposed(matrices: Any) -> Any:
    return np.swapaxes(matrices, -1, -2) if isinstance(matrices, np.ndarray) else matrices.transpose(-1, -2)
