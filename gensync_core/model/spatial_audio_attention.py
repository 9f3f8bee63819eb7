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

    def forward(
        self, features: Float[Tensor, "B N F"], tokens: Float[Tensor, "B K C"], barred: Float[Tensor, "#B N K"]
    ) -> Attended:
        """The definition, point by point; the head field gets the same from `field_folding`, for less.

        `barred` is taken off the logits.
        """
        batch, count, _ = features.shape
        query = self.query(features).reshape(batch, count, self.heads, self.head_size).transpose(1, 2)
        logits = query @ self._heads(self.key(tokens)).mT / math.sqrt(self.head_size)
        weights = torch.softmax(logits - barred[:, None], dim=-1)
        values = (weights @ self._heads(self.value(tokens))).transpose(1, 2).reshape(batch, count, -1)
        return Attended(values, weights.mean(1))

    def _heads(self, projected: Float[Tensor, "B K C"]) -> Float[Tensor, "B heads K S"]:
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TokenMean(nn.Module):
    """Every Gaussian hears the mean of all tokens that are not barred: what is left without the attention.

    Source: own choice, for the comparison.
    """

    query, key = None, None

    def __init__(self, token_size: int = 64, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.value = nn.Linear(token_size, token_size)

    def forward(
        self, features: Float[Tensor, "B N F"], tokens: Float[Tensor, "B K C"], barred: Float[Tensor, "#B N K"]
    ) -> Attended:
        """The definition, as in `SpatialAudioAttention`; `features` only tell the number of points."""
        weights = torch.softmax(-barred, dim=-1).expand(len(tokens), features.shape[1], -1)
        return Attended(weights @ self.value(tokens), weights)
