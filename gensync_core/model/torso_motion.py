"""A speaker's own rule for how the body goes along with the head: linear in the head's pose.

A torso that sways by several pixels is out of reach for gradients of pictures; with most of its motion known beforehand,
coarse sees a body that stands still, and the torso field is left with pixels and less.

Shapes: B frames, F tracked frames, N Gaussians.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.gaussians.cloud import GaussianCloud

_RIDGE = 1e-2
_MIN_FRAMES = 20


def fit_torso_motion(codes: Float[np.ndarray, "F 12"], motions: Float[np.ndarray, "F 3"]) -> Float[Tensor, "13 3"]:
    """Ridge regression from head poses (`pose_code`) to motions of the body; zeros where there are too few frames.

    The last row is the motion at the mean pose.
    """
    if len(codes) < _MIN_FRAMES:
        return torch.zeros(13, 3)
    spread = codes.std(axis=0) + 1e-6
    columns = np.concatenate([codes / spread, np.ones((len(codes), 1))], axis=1)
    normal = columns.T @ columns / len(codes) + _RIDGE * np.diag([1.0] * 12 + [0.0])
    weights = np.linalg.solve(normal, columns.T @ motions / len(codes))
    weights[:12] /= spread[:, None]
    return torch.from_numpy(weights.astype(np.float32))


def move_torso(
    torso: GaussianCloud, motion: Float[Tensor, "13 3"], code: Float[Tensor, "1 12"], centre: Float[Tensor, "3"]
) -> GaussianCloud:
    """The torso where the rule puts it at a head pose.

    Args:
        torso: in the camera's frame, dm.
        motion: from `fit_torso_motion`; its columns are the shift in x and y (dm) and the roll about the z axis (radian).
        code: `pose_code` of the frame.
        centre: the point that the roll turns about.
    """
    shift_x, shift_y, roll = (code @ motion[:12] + motion[12])[0].unbind()
    cos, sin, zero, one = torch.cos(roll), torch.sin(roll), torch.zeros_like(roll), torch.ones_like(roll)
    turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one]).reshape(3, 3)
    means = (torso.means - centre) @ turn.T + centre + torch.stack([shift_x, shift_y, zero])
    w, x, y, z = torso.quats.unbind(-1)
    half_cos, half_sin = torch.cos(roll / 2), torch.sin(roll / 2)
    quats = torch.stack(
        [
            half_cos * w - half_sin * z,
            half_cos * x - half_sin * y,
            half_cos * y + half_sin * x,
            half_cos * z + half_sin * w,
        ],
        dim=-1,
    )
    return replace(torso, means=means, quats=quats)
