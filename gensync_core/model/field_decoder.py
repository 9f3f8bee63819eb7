"""A field's decoder, frame by frame a small network of three layers with the frame's conditions folded into its weights.

All points of a frame see the same few tokens and the same modulation. So a query meets its key in one matrix [F, L], a
weight of attention meets its value and the first layer in one [L, H], and scale and shift of a layer go into its weight
and bias: per point only the products with its own features are left. The result is the same up to rounding at half the
work. float32 on the CPU runs in fused kernels, all else in plain torch.

Shapes: B frames, N points, W columns that hold a point's features, O outputs; others as in `field_folding`.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks, why_not_available
from gensync_core.model.field_folding import FieldWeights
from gensync_core.model.kernel_layout import CHUNK, LANES, SLOPE


def decode(features: Float[Tensor, "#B N W"], weights: FieldWeights) -> Float[Tensor, "B N O"]:
    """Outputs of every point; in the last column the audio attention, the mean over heads of the weight in lane 0.

    `features` [1 or B, N, W] may be shared by all frames; N must be a multiple of 4 and W of 16, see `kernel_layout`.
    """
    if features.device.type == "cpu" and features.dtype == torch.float32 and why_not_available() is None:
        return _DecodeOnCpu.apply(features, *weights)
    return decode_with_torch(features, weights)


def decode_with_torch(features: Float[Tensor, "#B N W"], weights: FieldWeights) -> Float[Tensor, "B N O"]:
    """The same in plain torch: for CUDA, other dtypes, and as the oracle of the kernels."""
    features = features[..., : len(weights.first)]
    logits = features @ weights.query + weights.query_bias[:, None]
    attention = torch.softmax(logits.unflatten(-1, (-1, LANES)), dim=-1)
    hidden = features @ weights.first + weights.first_bias + attention.flatten(-2) @ weights.values
    hidden = functional.leaky_relu(hidden, SLOPE)
    hidden = functional.leaky_relu(hidden @ weights.second + weights.second_bias[:, None], SLOPE)
    out = hidden @ weights.last + weights.last_bias
    return torch.cat([out[..., :-1], attention[..., 0].mean(-1, keepdim=True)], dim=-1)


class _DecodeOnCpu(torch.autograd.Function):
    """Where all frames share their points, what the first layer makes of the features is worked out once for all."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, *weights: Tensor) -> Tensor:
        from gensync_core.model.field_kernels import decode_chunks  # which needs numba to be defined

        x, *detached = (tensor.detach().contiguous() for tensor in (features, *weights))
        folded = FieldWeights(*detached)
        num_frames, num_points, (num_lanes, num_hidden) = len(folded.query), x.shape[1], folded.values.shape[1:]
        base = torch.empty(0, num_hidden)
        if len(x) < num_frames:
            base = torch.addmm(folded.first_bias, x[0, :, : len(folded.first)], folded.first)
        hidden1 = np.empty((num_frames, num_points, num_lanes + num_hidden), np.float32)
        hidden2 = np.empty((num_frames, num_points, num_hidden), np.float32)
        out = np.empty((num_frames, num_points, folded.last.shape[1]), np.float32)
        items = num_frames * -(-num_points // CHUNK)
        arrays = (tensor.numpy() for tensor in (x, base, *folded))
        run_in_chunks(decode_chunks, items, *arrays, hidden1, hidden2, out)
        ctx.save_for_backward(x, *folded)
        ctx.hidden = hidden1, hidden2
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from gensync_core.model.field_kernels import decode_chunks_backward

        x, *saved = ctx.saved_tensors
        folded, (hidden1, hidden2) = FieldWeights(*saved), ctx.hidden
        g_out = grad_outputs[0].contiguous().numpy()
        num_frames, num_points, _ = g_out.shape
        shared, wants_features = len(x) < num_frames, ctx.needs_input_grad[0]
        turned = [
            tensor.mT.contiguous().numpy() for tensor in (folded.query, folded.first, folded.values, folded.second, folded.last)
        ]
        for index in (0, 1):  # the kernel writes all columns of the features' gradient
            turned[index] = _widened(turned[index], x.shape[2])
        names = ["values", "second", "second_bias", "last", "last_bias"]
        if not shared:
            names += ["query", "query_bias", "first", "first_bias"]
        of_frame = {name: name not in ("first", "first_bias", "last", "last_bias") for name in names}
        shapes = {name: getattr(folded, name).shape[1:] if of_frame[name] else getattr(folded, name).shape for name in names}
        sizes = [shapes[name].numel() for name in names]
        items = num_frames * -(-num_points // CHUNK)
        shares = np.zeros((items, sum(sizes)), np.float32)
        g_first = np.empty((num_frames, num_points if shared else 0, hidden1.shape[2]), np.float32)
        g_features = np.empty((num_frames, num_points if wants_features and not shared else 0, x.shape[2]), np.float32)
        run_in_chunks(decode_chunks_backward, items, x.numpy(), *turned, hidden1, hidden2, g_out, g_first, shares, g_features)
        totals = torch.from_numpy(shares).view(num_frames, -1, sum(sizes)).sum(1).split(sizes, dim=1)
        gradients = {
            name: total.unflatten(1, shapes[name]) if of_frame[name] else total.sum(0).view(shapes[name])
            for name, total in zip(names, totals, strict=True)
        }
        g_x = torch.from_numpy(g_features) if wants_features else None
        if shared:
            g_x = _finish_shared(x[0], folded, torch.from_numpy(g_first), gradients)
        return g_x, *(gradients[name] for name in FieldWeights._fields)


def _finish_shared(x: Tensor, folded: FieldWeights, g_first: Tensor, gradients: dict[str, Tensor]) -> Tensor:
    """The rest of the backward pass where all frames share the points x [N, W]; returns dL/dx [1, N, W]."""
    num_features, num_lanes = folded.query.shape[1:]
    features = x[:, :num_features]
    g_logits, g_base = g_first[..., :num_lanes], g_first[..., num_lanes:].sum(0)
    gradients["query"] = features.T @ g_logits
    gradients["query_bias"] = g_logits.sum(1)
    gradients["first"] = features.T @ g_base
    gradients["first_bias"] = g_base.sum(0)
    g_features = g_base @ folded.first.T
    g_features += g_logits.transpose(0, 1).flatten(1) @ folded.query.transpose(1, 2).flatten(0, 1)
    return functional.pad(g_features, (0, x.shape[1] - num_features))[None]


def _widened(array: np.ndarray, columns: int) -> np.ndarray:
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, columns - array.shape[-1])])
