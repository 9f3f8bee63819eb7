"""Pose-conditioned deformation of the torso's Gaussians, which live in the body's frame.

Shapes: B frames, N Gaussians, Z identity code.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gensync_core.model.hash_triplane import HashTriplane

_ANCHORS = [[0.0, 1.2, 0.5], [-0.8, 1.2, 0.5], [0.8, 1.2, 0.5]]
"""Three points below the head in decimetre of the canonical frame: throat, left and right."""
_BODY_ANCHORS = [[0.0, 1.2, 0.5], [-1.5, 2.2, 0.5], [1.5, 2.2, 0.5]]
"""Throat and shoulders, where the body's motion was seen: elsewhere what is tracked says little."""
_CODE_SCALE = 10.0
"""Makes motions of centimetres as large as other inputs."""


class TorsoField(nn.Module):
    """The head's turn over the body, told by three anchor points, and the body's own motion bend neck and shoulders.

    Source: GSTalker torso field (anchor code after RAD-NeRF); the body's motion is our own choice. A zero-initialised field
    is the identity.
    """

    anchors: Tensor
    body_anchors: Tensor

    def __init__(self, triplane: HashTriplane, identity_size: int, hidden_size: int = 32, mean_scale: float = 0.1) -> None:
        super().__init__()
        self.triplane, self.mean_scale = triplane, mean_scale
        self.register_buffer("anchors", torch.tensor(_ANCHORS))
        self.register_buffer("body_anchors", torch.tensor(_BODY_ANCHORS))
        self.layers = nn.Sequential(
            nn.Linear(triplane.out_size + 12 + identity_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, 7),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def anchor_code(self, head_to_body: Float[Tensor, "B 4 4"], mean_pose: Float[Tensor, "4 4"]) -> Float[Tensor, "B 6"]:
        """Where the mean pose's anchors lie in the turned head's frame, in x and y: six numbers that are 0 at the mean pose."""
        rest = self.anchors @ mean_pose[:3, :3].T + mean_pose[:3, 3]
        rotation, translation = head_to_body[:, :3, :3], head_to_body[:, :3, 3]
        seen = (rest[None] - translation[:, None]) @ rotation
        return (seen - self.anchors)[..., :2].reshape(-1, 6)

    def pose_code(
        self, head_to_camera: Float[Tensor, "B 4 4"], body_to_camera: Float[Tensor, "B 4 4"], mean_pose: Float[Tensor, "4 4"]
    ) -> Float[Tensor, "B 12"]:
        """`anchor_code` of the head over the body, and how far the body's own motion takes throat and shoulders, in x and y,
        which is 0 in the reference frame; in centimetres.
        """
        head = self.anchor_code(torch.linalg.inv(body_to_camera) @ head_to_camera, mean_pose)
        rest = self.body_anchors @ mean_pose[:3, :3].T + mean_pose[:3, 3]
        moved = rest @ body_to_camera[:, :3, :3].transpose(1, 2) + body_to_camera[:, None, :3, 3]
        return _CODE_SCALE * torch.cat([head, (moved - rest)[..., :2].reshape(-1, 6)], dim=1)

    def forward(
        self, points: Float[Tensor, "B N 3"], identity: Float[Tensor, "B Z"], pose_code: Float[Tensor, "B 12"]
    ) -> tuple[Float[Tensor, "B N 3"], Float[Tensor, "B N 4"]]:
        """Offsets of means (in the torso's box) and of raw quaternions; points in [-1, 1]^3."""
        batch, count, _ = points.shape
        features = self.triplane(points.reshape(-1, 3)).reshape(batch, count, -1)
        condition = torch.cat([pose_code, identity], dim=-1)[:, None].expand(-1, count, -1)
        out = self.layers(torch.cat([features, condition], dim=-1))
        return out[..., :3] * self.mean_scale, out[..., 3:] * 0.1
