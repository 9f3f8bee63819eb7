"""A field's layers and a frame's conditions -> the small network of `field_decoder` for each frame.

Written as one autograd function, because seventy small operations a step cost more to dispatch than to compute.

Shapes: B frames, K tokens, C token size, F features, H hidden, L lanes (8 a head), O output columns.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gensync_core.model.kernel_layout import LANES, ROWS, padded_width

_NO_TOKEN = -1e9
"""Logit of a lane that holds no token: its weight is 0."""


class FieldWeights(NamedTuple):
    """What each frame's network multiplies with; their widths are multiples of the kernels' tiles.

    Attributes:
        query: features -> logits of attention, the same columns for all frames but other numbers; and its bias.
        first: features -> the first layer's sum.
        values: what each weight of attention adds to that sum.
        second: hidden -> hidden.
        last: hidden -> outputs and at least one spare column of zeros.
    """

    query: Float[Tensor, "B F L"]
    query_bias: Float[Tensor, "B L"]
    first: Float[Tensor, "F H"]
    first_bias: Float[Tensor, "H"]
    values: Float[Tensor, "B L H"]
    second: Float[Tensor, "B H H"]
    second_bias: Float[Tensor, "B H"]
    last: Float[Tensor, "H O"]
    last_bias: Float[Tensor, "O"]


class FieldLayers(NamedTuple):
    """The layers that are folded; `first` reads the features and, after them, what attention returns.

    Without `query` and `key` all logits are alike: the tokens that are not barred are averaged.
    """

    query: nn.Linear | None
    key: nn.Linear | None
    value: nn.Linear
    first: nn.Linear
    second: nn.Linear
    last: nn.Linear


def fold(
    tokens: Float[Tensor, "B K C"],
    modulations: tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]],
    layers: FieldLayers,
    units: Float[Tensor, "outputs"],
    barred: Float[Tensor, "K"],
    heads: int,
) -> FieldWeights:
    """Fold attention to the tokens, the second layer's modulations and the outputs' units into the layers.

    Args:
        tokens: keys and values of attention; the audio token is the first.
        modulations: scale - 1 and shift of the second layer's sums side by side (M = 2 H), applied one after the other.
        layers: see `FieldLayers`.
        units: factor of each output.
        barred: what is taken off a token's logits for each unit of the column that follows a point's features.
        heads: of attention.

    Raises:
        ValueError: there are more tokens than lanes.
    """
    if tokens.shape[1] > LANES:
        raise ValueError(f"at most {LANES} tokens, got {tokens.shape[1]}")
    size = layers.value.out_features
    asking = [
        [tokens.new_zeros(size, inputs), tokens.new_zeros(size)] if layer is None else [layer.weight, layer.bias]
        for layer, inputs in ((layers.query, layers.first.in_features - size), (layers.key, size))
    ]
    rest = [[layer.weight, layer.bias] for layer in (layers.value, layers.first, layers.second, layers.last)]
    parameters = [parameter for pair in (*asking, *rest) for parameter in pair]
    return FieldWeights(*_Fold.apply(tokens, *modulations, units, barred, heads, *parameters))


class _Fold(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, early: Tensor, late: Tensor, units: Tensor, barred: Tensor, heads: int, *layers: Tensor
    ) -> Any:
        query, query_bias, key, key_bias, value, value_bias, first, first_bias, second, second_bias, last, last_bias = layers
        batch, num_tokens, size = tokens.shape
        num_features, num_hidden, head_size = query.shape[1], len(first), size // heads
        flat = tokens.reshape(-1, size)

        def by_head(rows: Tensor) -> Tensor:
            return rows.view(-1, heads, head_size).transpose(0, 1)

        keys = by_head(torch.addmm(key_bias, flat, key.T).mul_(head_size**-0.5))  # [heads, B K, head size]
        heard = by_head(torch.addmm(value_bias, flat, value.T))
        asking = torch.cat([query, query_bias[:, None]], dim=1).view(heads, head_size, -1)
        hearing = first[:, num_features:].T.reshape(heads, head_size, -1)
        asked, said = torch.bmm(keys, asking), torch.bmm(heard, hearing)  # [heads, B K, F + 1], [heads, B K, H]
        asked, said = asked.view(heads, batch, num_tokens, -1), said.view(heads, batch, num_tokens, -1)

        rows, lanes = num_features + 1 + -(num_features + 1) % ROWS, heads * LANES
        folded_query = tokens.new_zeros(batch, rows, heads, LANES)
        folded_query[:, :num_features, :, :num_tokens] = asked[..., :-1].permute(1, 3, 0, 2)
        folded_query[:, num_features, :, :num_tokens] = -barred
        folded_bias = tokens.new_full((batch, heads, LANES), _NO_TOKEN)
        folded_bias[..., :num_tokens] = asked[..., -1].transpose(0, 1)
        values = tokens.new_zeros(batch, heads, LANES, num_hidden)
        values[:, :, :num_tokens] = said.transpose(0, 1)
        folded_first = tokens.new_zeros(rows, num_hidden)
        folded_first[:num_features] = first[:, :num_features].T

        early_scale, late_scale = 1 + early[:, :num_hidden], 1 + late[:, :num_hidden]
        scale = early_scale * late_scale
        shift = torch.addcmul(late[:, num_hidden:], early[:, num_hidden:], late_scale)
        columns = padded_width(len(last) + 1)
        folded_last, folded_last_bias = tokens.new_zeros(num_hidden, columns), tokens.new_zeros(columns)
        folded_last[:, : len(last)] = last.T * units
        folded_last_bias[: len(last)] = last_bias * units
        ctx.save_for_backward(
            flat, keys, heard, asking, hearing, early, early_scale, late_scale, scale, units, key, value, second, second_bias
        )
        ctx.shape = batch, num_tokens, num_features, num_hidden, len(last)
        return (
            folded_query.view(batch, rows, lanes),
            folded_bias.view(batch, lanes),
            folded_first,
            first_bias.view_as(first_bias),
            values.view(batch, lanes, num_hidden),
            second.T * scale[:, None],
            torch.addcmul(shift, scale, second_bias),
            folded_last,
            folded_last_bias,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (
            flat, keys, heard, asking, hearing, early, early_scale, late_scale, scale, units, key, value, second, second_bias
        ) = ctx.saved_tensors  # fmt: skip
        batch, num_tokens, num_features, num_hidden, outputs = ctx.shape
        g_query, g_query_bias, g_first, g_first_bias, g_values, g_second, g_second_bias, g_last, g_last_bias = grad_outputs
        heads, size = len(keys), flat.shape[1]

        g_asked = flat.new_empty(heads, batch, num_tokens, num_features + 1)
        of_tokens = g_query.unflatten(-1, (heads, LANES))[:, :num_features, :, :num_tokens]
        g_asked[..., :-1] = of_tokens.permute(2, 0, 3, 1)
        g_asked[..., -1] = g_query_bias.unflatten(-1, (heads, LANES))[..., :num_tokens].transpose(0, 1)
        g_asked = g_asked.view(heads, -1, num_features + 1)
        g_said = g_values.unflatten(1, (heads, LANES))[:, :, :num_tokens].transpose(0, 1).reshape(heads, -1, num_hidden)

        def from_heads(rows: Tensor) -> Tensor:
            return rows.transpose(0, 1).reshape(-1, size)

        g_keys = from_heads(torch.bmm(g_asked, asking.mT)).mul_((size // heads) ** -0.5)
        g_heard = from_heads(torch.bmm(g_said, hearing.mT))
        g_asking = torch.bmm(keys.mT, g_asked).view(size, -1)
        g_hearing = torch.bmm(heard.mT, g_said).view(size, -1)
        g_tokens = torch.addmm(g_keys @ key, g_heard, value).view(batch, num_tokens, size)

        g_scale = torch.addcmul((g_second * second.T).sum(1), g_second_bias, second_bias)
        g_early = torch.cat([g_scale * late_scale, g_second_bias * late_scale], dim=1)
        g_late_scale = torch.addcmul(g_scale * early_scale, g_second_bias, early[:, num_hidden:])
        g_late = torch.cat([g_late_scale, g_second_bias], dim=1)
        return (
            g_tokens, g_early, g_late, None, None, None,
            g_asking[:, :-1], g_asking[:, -1],
            g_keys.T @ flat, g_keys.sum(0),
            g_heard.T @ flat, g_heard.sum(0),
            torch.cat([g_first[:num_features].T, g_hearing.T], dim=1), g_first_bias,
            (g_second * scale[:, None]).sum(0).T, (g_second_bias * scale).sum(0),
            g_last[:, :outputs].T * units[:, None], g_last_bias[:outputs] * units,
        )  # fmt: skip
