"""Each Gaussian asks, by where it is, which condition it listens to.

Shapes: B frames, N Gaussians, F tri-plane features, K tokens, C token size.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Attended(NamedTuple):
    """What each Gaussian heard, and how much of it came from each token (averaged over heads)."""

    values: Float[Tensor, "B N C"]
    weights: Float[Tensor, "B N K"]


class SpatialAudioAttention(nn.Module):
    """One layer of cross-attention: queries are tri-plane features, keys and values the frame's condition tokens.

    Source: spatial-audio attention of GSTalker and its kin.
    """

    def __init__(self, feature_size: int, token_size: int = 64, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.head_size = heads, token_size // heads
        self.query = nn.Linear(feature_size, token_size)
        self.key = nn.Linear(token_size, token_size)
        self.value = nn.Linear(token_size, token_size)

    def forward(self, features: Float[Tensor, "B N F"], tokens: Float[Tensor, "B K C"]) -> Attended:
        batch, count, _ = features.shape
        query = self.query(features).reshape(batch, count, self.heads, self.head_size).transpose(1, 2)
        key = self.key(tokens).reshape(batch, -1, self.heads, self.head_size).permute(0, 2, 3, 1)
        value = self.value(tokens).reshape(batch, -1, self.heads, self.head_size).transpose(1, 2)
        weights = torch.softmax(query @ key / math.sqrt(self.head_size), dim=-1)
        values = (weights @ value).transpose(1, 2).reshape(batch, count, -1)
        return Attended(values, weights.mean(1))
