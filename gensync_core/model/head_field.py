"""Audio-driven deformation of the head's Gaussians in the canonical box.

Shapes: B frames, N points, Z identity code, H fused code, C token size (64).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gensync_core.model.disentanglement import CodeModulation
from gensync_core.model.hash_triplane import HashTriplane
from gensync_core.model.spatial_audio_attention import SpatialAudioAttention

AUDIO_TOKEN = 0
DEFORMABLE = ("mean", "opacity", "scale", "quat")


class Deformation(NamedTuple):
    """Offsets in the canonical box (means) and in raw parameter space (the others); None where switched off."""

    means: Float[Tensor, "B N 3"]
    logit_opacities: Float[Tensor, "B N"] | None
    log_scales: Float[Tensor, "B N 3"] | None
    quats: Float[Tensor, "B N 4"] | None
    audio_attention: Float[Tensor, "B N"]


class HeadField(nn.Module):
    """Tri-plane feature -> attention over the tokens {h, z, eye, pose, null} -> decoder 64x3 -> offsets.

    The last layer starts at zero: an untrained field is the identity.
    Source: GSTalker deformation field; identity modulation from GenSync.
    """

    def __init__(
        self,
        triplane: HashTriplane,
        identity_size: int,
        token_size: int,
        hidden_size: int,
        deform: tuple[str, ...],
        mean_scale: float,
    ) -> None:
        super().__init__()
        self.triplane = triplane
        self.deform, self.mean_scale = deform, mean_scale
        self.eye_token = nn.Sequential(nn.Linear(6, token_size), nn.LeakyReLU(0.02), nn.Linear(token_size, token_size))
        self.pose_token = nn.Sequential(nn.Linear(12, token_size), nn.LeakyReLU(0.02), nn.Linear(token_size, token_size))
        self.identity_token = nn.Linear(identity_size, token_size)
        self.null_token = nn.Parameter(torch.zeros(token_size))
        feature_size = triplane.out_size + 3  # the position itself carries the coarsest scale
        self.normalise = nn.LayerNorm(token_size)
        self.attention = SpatialAudioAttention(feature_size, token_size)
        self.first = nn.Linear(feature_size + token_size, hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size)
        self.modulation = CodeModulation(identity_size, hidden_size)
        self.frame_modulation = CodeModulation(token_size, hidden_size)
        self.sizes = {"mean": 3, "opacity": 1, "scale": 3, "quat": 4}
        self.last = nn.Linear(hidden_size, sum(self.sizes[name] for name in deform))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        points: Float[Tensor, "B N 3"],
        fused: Float[Tensor, "B H"],
        identity: Float[Tensor, "B Z"],
        upper_face: Float[Tensor, "B 6"],
        pose: Float[Tensor, "B 12"],
    ) -> Deformation:
        """Deform points of the canonical box [-1, 1]^3 under one condition a batch entry."""
        batch, count, _ = points.shape
        features = torch.cat([self.triplane(points.reshape(-1, 3)).reshape(batch, count, -1), points], dim=-1)
        tokens = torch.stack(
            [
                fused,
                self.identity_token(identity),
                self.eye_token(upper_face),
                self.pose_token(pose),
                self.null_token.expand(batch, -1),
            ],
            dim=1,
        )
        attended = self.attention(features, self.normalise(tokens))
        hidden = functional.leaky_relu(self.first(torch.cat([features, attended.values], dim=-1)), 0.02)
        hidden = functional.leaky_relu(self.modulation(self.frame_modulation(self.second(hidden), fused), identity), 0.02)
        parts = dict(zip(self.deform, self.last(hidden).split([self.sizes[name] for name in self.deform], dim=-1), strict=True))
        opacity = parts.get("opacity")
        return Deformation(
            means=parts["mean"] * self.mean_scale if "mean" in parts else torch.zeros_like(points),
            logit_opacities=opacity.squeeze(-1) if opacity is not None else None,
            log_scales=parts["scale"] * 0.1 if "scale" in parts else None,
            quats=parts["quat"] * 0.1 if "quat" in parts else None,
            audio_attention=attended.weights[..., AUDIO_TOKEN],
        )
