"""Pose-conditioned deformation of the torso's Gaussians, which live in the body's frame.

Shapes: B frames, N Gaussians, Z identity code.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gensync_core.model.hash_triplane import HashTriplane

_ANCHORS = [[0.0, 1.2, 0.5], [-0.8, 1.2, 0.5], [0.8, 1.2, 0.5]]
"""Three points below the head in decimetre of the canonical frame: throat, left and right."""


class TorsoField(nn.Module):
    """How far the head has turned from its mean pose, told by three anchor points, moves neck and shoulders.

    Source: GSTalker torso field (anchor code after RAD-NeRF); a zero-initialised field is the identity.
    """

    anchors: Tensor

    def __init__(self, triplane: HashTriplane, identity_size: int, hidden_size: int = 32, mean_scale: float = 0.1) -> None:
        super().__init__()
        self.triplane, self.mean_scale = triplane, mean_scale
        self.register_buffer("anchors", torch.tensor(_ANCHORS))
        self.layers = nn.Sequential(
            nn.Linear(triplane.out_size + 6 + identity_size, hidden_size),
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

    def forward(
        self, points: Float[Tensor, "B N 3"], identity: Float[Tensor, "B Z"], anchor_code: Float[Tensor, "B 6"]
    ) -> tuple[Float[Tensor, "B N 3"], Float[Tensor, "B N 4"]]:
        """Offsets of means (in the torso's box) and of raw quaternions; points in [-1, 1]^3."""
        batch, count, _ = points.shape
        features = self.triplane(points.reshape(-1, 3)).reshape(batch, count, -1)
        condition = torch.cat([anchor_code, identity], dim=-1)[:, None].expand(-1, count, -1)
        out = self.layers(torch.cat([features, condition], dim=-1))
        return out[..., :3] * self.mean_scale, out[..., 3:] * 0.1
