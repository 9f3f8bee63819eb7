"""Audio-driven deformation of the head's Gaussians in the canonical box.

Shapes: B frames, N points, Z identity code, H fused code, C token size (64).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gensync_core.face.canonical import canonical_mouth
from gensync_core.model.dense_triplane import DenseTriplane
from gensync_core.model.disentanglement import CodeModulation
from gensync_core.model.field_decoder import decode
from gensync_core.model.field_folding import FieldLayers, FieldWeights, fold
from gensync_core.model.hash_triplane import HashTriplane
from gensync_core.model.kernel_layout import ROWS, padded_width
from gensync_core.model.spatial_audio_attention import SpatialAudioAttention, TokenMean

TOKENS = ("voice", "identity", "eyes", "pose", "null")
"""What a Gaussian can listen to: h, z, the upper face, the head's pose, and nothing."""
_NOT_BY_THE_MOUTH = (0.0, 0.0, 1.0, 1.0, 0.0)
"""Tokens {h, z, eye, pose, null} that the mouth does not listen to."""
_BAR = 20.0
"""Taken off the logits of these at the mouth's centre: nothing is left of their weight."""
_UNITS = {"opacity": 1.0, "scale": 0.1, "quat": 0.1}
"""Size of one output unit; that of the means is a parameter."""


class Deformation(NamedTuple):
    """Offsets in the canonical box (means) and in raw parameter space (the others); None where switched off."""

    means: Float[Tensor, "B N 3"]
    logit_opacities: Float[Tensor, "B N"] | None
    log_scales: Float[Tensor, "B N 3"] | None
    quats: Float[Tensor, "B N 4"] | None
    audio_attention: Float[Tensor, "B N"]


class HeadField(nn.Module):
    """Tri-plane feature -> attention over the tokens {h, z, eye, pose, null} -> decoder 64x3 -> offsets.

    The last layer starts at zero: an untrained field is the identity. What the layers compute is written down in the plain
    `forward` of attention (or of the mean that stands in for it) and modulations; here they are folded into one small
    network for each frame (`field_decoder`).
    Source: GSTalker deformation field; identity modulation from GenSync.
    """

    units: Tensor
    barred: Tensor
    mouth: Tensor

    def __init__(
        self,
        triplane: HashTriplane | DenseTriplane,
        identity_size: int,
        token_size: int,
        hidden_size: int,
        deform: tuple[str, ...],
        mean_scale: float,
        mouth_radius: float,
        *,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.triplane, self.deform, self.mouth_radius = triplane, deform, mouth_radius
        self.eye_token = nn.Sequential(nn.Linear(6, token_size), nn.LeakyReLU(0.02), nn.Linear(token_size, token_size))
        self.pose_token = nn.Sequential(nn.Linear(12, token_size), nn.LeakyReLU(0.02), nn.Linear(token_size, token_size))
        self.identity_token = nn.Linear(identity_size, token_size)
        self.null_token = nn.Parameter(torch.zeros(token_size))
        self.feature_size = feature_size = triplane.out_size + 3  # the position itself carries the coarsest scale
        self.normalise = nn.LayerNorm(token_size)
        self.attention = SpatialAudioAttention(feature_size, token_size) if attention else TokenMean(token_size)
        self.first = nn.Linear(feature_size + token_size, hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size)
        self.modulation = CodeModulation(identity_size, hidden_size)
        self.frame_modulation = CodeModulation(token_size, hidden_size)
        self.sizes = {"mean": 3, "opacity": 1, "scale": 3, "quat": 4}
        self.last = nn.Linear(hidden_size, sum(self.sizes[name] for name in deform))
        units = torch.cat([torch.full((self.sizes[name],), {**_UNITS, "mean": mean_scale}[name]) for name in deform])
        self.register_buffer("units", units, persistent=False)
        self.register_buffer("barred", _BAR * torch.tensor(_NOT_BY_THE_MOUTH), persistent=False)
        self.register_buffer("mouth", torch.from_numpy(canonical_mouth()), persistent=False)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @torch.no_grad()
    def mouth_window(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """1 at the mouth's centre, falling to 1/e at `mouth_radius`: here only the voice and the speaker are heard.

        What is learned of pose and brows by chance, because they go with speech, would move a silent mouth (own choice).
        """
        if self.mouth_radius == 0:
            return points.new_zeros(len(points))
        distances = torch.linalg.vector_norm(points - self.mouth, dim=-1)
        return distances.div_(self.mouth_radius).pow_(4).neg_().exp_()

    def forward(
        self,
        points: Float[Tensor, "#B N 3"],
        fused: Float[Tensor, "B H"],
        identity: Float[Tensor, "B Z"],
        upper_face: Float[Tensor, "B 6"],
        pose: Float[Tensor, "B 12"],
    ) -> Deformation:
        """Deform points of the canonical box [-1, 1]^3 under one condition a batch entry.

        Points [1, N, 3] that all entries share are looked up in the tri-plane once.
        """
        sets, count, _ = points.shape
        # The decoder takes points four at a time.
        padded = functional.pad(points, (0, 0, 0, -count % ROWS)) if count % ROWS else points
        flat = padded.reshape(-1, 3)
        features = self.triplane.with_positions(flat, self.mouth_window(flat), padded_width(self.feature_size + 1))
        weights = self.frame_network(fused, identity, upper_face, pose)
        out = decode(features.reshape(sets, -1, features.shape[-1]), weights)
        out = out if out.shape[1] == count else out[:, :count]
        sizes = [self.sizes[name] for name in self.deform]
        *values, _, audio_attention = out.split([*sizes, out.shape[-1] - sum(sizes) - 1, 1], dim=-1)
        parts = dict(zip(self.deform, values, strict=True))
        opacity = parts.get("opacity")
        return Deformation(
            means=parts["mean"] if "mean" in parts else out.new_zeros(*out.shape[:2], 3),
            logit_opacities=opacity.squeeze(-1) if opacity is not None else None,
            log_scales=parts.get("scale"),
            quats=parts.get("quat"),
            audio_attention=audio_attention.squeeze(-1),
        )

    def frame_network(
        self,
        fused: Float[Tensor, "B H"],
        identity: Float[Tensor, "B Z"],
        upper_face: Float[Tensor, "B 6"],
        pose: Float[Tensor, "B 12"],
    ) -> FieldWeights:
        """The decoder of each frame, with the frame's conditions in its weights."""
        tokens = self._tokens(fused, identity, upper_face, pose)
        modulations = self.frame_modulation.affine(fused), self.modulation.affine(identity)
        attention = self.attention
        layers = FieldLayers(attention.query, attention.key, attention.value, self.first, self.second, self.last)
        return fold(tokens, modulations, layers, self.units, self.barred, attention.heads)

    def attention_weights(
        self,
        points: Float[Tensor, "N 3"],
        fused: Float[Tensor, "B H"],
        identity: Float[Tensor, "B Z"],
        upper_face: Float[Tensor, "B 6"],
        pose: Float[Tensor, "B 12"],
    ) -> Float[Tensor, "B N K"]:
        """How much each point hears of each of `TOKENS`, summing to 1; by the plain form of the attention."""
        features = torch.cat([self.triplane(points), points], dim=-1)[None].expand(len(fused), -1, -1)
        barred = self.mouth_window(points)[None, :, None] * self.barred
        return self.attention(features, self._tokens(fused, identity, upper_face, pose), barred).weights

    def _tokens(
        self,
        fused: Float[Tensor, "B H"],
        identity: Float[Tensor, "B Z"],
        upper_face: Float[Tensor, "B 6"],
        pose: Float[Tensor, "B 12"],
    ) -> Float[Tensor, "B K C"]:
        conditions = [fused, self.identity_token(identity), self.eye_token(upper_face), self.pose_token(pose)]
        return self.normalise(torch.stack([*conditions, self.null_token.expand(len(fused), -1)], dim=1))
