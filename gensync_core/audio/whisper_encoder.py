"""The encoder of OpenAI's Whisper, by torch's own operations.

transformers has it too, and `tests` hold both to the same bits. But importing it takes as long as encoding two minutes of
speech, in a process that hears one clip and ends. Source: Radford et al. (2022), https://arxiv.org/abs/2212.04356.
"""

from collections.abc import Mapping

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

_POSITIONS = "embed_positions.weight"
_ATTENTION = tuple(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out"))
_PARTS = (*_ATTENTION, "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm")


class WhisperEncoder:
    """Hidden states of a log-mel spectrogram.

    Attributes:
        num_mels: bands of the spectrogram.
        num_positions: states that come out; twice as many columns go in.
        num_layers: transformer blocks there are.

    Args:
        weights: under transformers' names.
        num_heads: of each block's attention.

    Raises:
        ValueError: a tensor is missing.
    """

    def __init__(self, weights: Mapping[str, Tensor], num_heads: int) -> None:
        self.num_layers = 1 + max((int(name.split(".")[1]) for name in weights if name.startswith("layers.")), default=-1)
        parts = ["conv1", "conv2", "layer_norm"]
        for block in range(self.num_layers):
            parts += [f"layers.{block}.{part}" for part in _PARTS]
        needed = {_POSITIONS} | {f"{part}.{name}" for part in parts for name in ("weight", "bias")}
        needed -= {f"layers.{block}.self_attn.k_proj.bias" for block in range(self.num_layers)}  # it would change nothing
        if missing := sorted(needed - weights.keys()):
            raise ValueError(f"tensor {missing[0]!r} is missing")
        self._weights, self._num_heads = weights, num_heads
        self.num_mels, self.num_positions = weights["conv1.weight"].shape[1], len(weights[_POSITIONS])

    def states(self, mel: Float[Tensor, "M columns"], layer: int) -> Float[Tensor, "P D"]:
        """Hidden states of one spectrogram.

        Args:
            mel: `num_positions` pairs of columns.
            layer: 0 for what enters the first block, n for what block n puts out; the last one's is normalised.
        """
        heard = F.gelu(F.conv1d(mel[None], *self._pair("conv1"), padding=1))
        heard = F.gelu(F.conv1d(heard, *self._pair("conv2"), stride=2, padding=1))
        states = heard.transpose(1, 2) + self._weights[_POSITIONS]
        for block in range(layer):
            states = self._block(states, f"layers.{block}.")
        return (self._normalised(states, "layer_norm") if layer == self.num_layers else states)[0]

    def shortened(self, num_positions: int) -> "WhisperEncoder":
        """One that hears the first `num_positions` only."""
        weights = {**self._weights, _POSITIONS: self._weights[_POSITIONS][:num_positions]}
        return WhisperEncoder(weights, self._num_heads)

    def _block(self, states: Tensor, name: str) -> Tensor:
        attention = f"{name}self_attn."
        normalised = self._normalised(states, f"{name}self_attn_layer_norm")
        queries, values = (self._linear(normalised, f"{attention}{part}_proj") for part in "qv")
        keys = F.linear(normalised, self._weights[f"{attention}k_proj.weight"])
        # The queries are scaled before the product, as in the original: otherwise it rounds differently.
        queries = queries * (queries.shape[-1] // self._num_heads) ** -0.5
        queries, keys, values = (self._heads(part) for part in (queries, keys, values))
        seen = F.scaled_dot_product_attention(queries, keys, values, scale=1.0).transpose(1, 2).flatten(2)
        states = states + self._linear(seen, f"{attention}out_proj")
        hidden = F.gelu(self._linear(self._normalised(states, f"{name}final_layer_norm"), f"{name}fc1"))
        return states + self._linear(hidden, f"{name}fc2")

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self._num_heads, -1)).transpose(1, 2).contiguous()

    def _linear(self, states: Tensor, name: str) -> Tensor:
        return F.linear(states, *self._pair(name))

    def _normalised(self, states: Tensor, name: str) -> Tensor:
        return F.layer_norm(states, states.shape[-1:], *self._pair(name))

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
