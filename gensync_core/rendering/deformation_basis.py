"""A layer's deformation as its mean plus a few fixed ones times a frame's code: no network at each Gaussian any more.

    outputs of all Gaussians at a frame = mean [N K] + code [R] @ basis [R, N K]

The basis is a truncated singular value decomposition of the outputs over sample frames. Its frame space comes from some of
the Gaussians (their Gram matrix over frames), the rest by regression, so that never more than a block of outputs is held.
A frame's code needs no training: the field is evaluated at a few hundred anchor Gaussians, and least squares gives the code.
What is left over there tells how far this frame lies outside of the basis.

Source: own choice; anchors are random, which served as well as pivoted QR (as in DEIM) on trained speakers.

Shapes: F sample frames, B frames, N Gaussians, P anchors, K outputs of the field, R rank, M = N K.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.rendering.deformation import Conditions, FieldLayer

_BLOCK = 2048
"""Gaussians whose outputs over all sample frames are held at once; the first block gives the frame space."""
_FRAMES_AT_ONCE = 16
_SMALLEST_EIGENVALUE = 1e-10
"""Relative to the largest: directions below it are rounding."""


class FrameCodes(NamedTuple):
    """Codes of some frames, and the root mean square of what they leave over at the anchors, in (weighted) output units."""

    codes: Float[Tensor, "B R"]
    residuals: Float[Tensor, "B"]


class DeformationBasis:
    """See the module; made by `fit_basis`."""

    def __init__(
        self, layer: FieldLayer, mean: Float[Tensor, "N K"], basis: Float[Tensor, "R N K"], anchors: Int[Tensor, "P"]
    ) -> None:
        self._layer, self.anchors = layer, anchors
        self._anchor_mean = mean[anchors] * layer.weights
        self._anchor_basis = (basis[:, anchors] * layer.weights).flatten(1)
        self._to_codes = torch.linalg.pinv(self._anchor_basis.double()).to(basis.dtype)
        # From outputs to the cloud's own numbers, one attribute after the other, so that each is one piece of memory.
        sizes = [getattr(layer.cloud, name)[0].numel() for name in layer.attributes]
        rest = [getattr(layer.cloud, name).flatten() for name in layer.attributes]
        self._mean = torch.cat([part.flatten() for part in (mean * layer.steps).split(sizes, dim=-1)]) + torch.cat(rest)
        self._basis = torch.cat([part.flatten(1) for part in (basis * layer.steps).split(sizes, dim=-1)], dim=1)
        self._shapes = {name: getattr(layer.cloud, name).shape for name in layer.attributes}

    @property
    def rank(self) -> int:
        """Numbers in a code."""
        return len(self._basis)

    def frame_codes(self, conditions: Conditions) -> FrameCodes:
        """Codes of some frames, from the field at the anchors."""
        outputs = self._layer.outputs(conditions, self.anchors) * self._layer.weights
        away = (outputs - self._anchor_mean).flatten(1)
        codes = away @ self._to_codes
        return FrameCodes(codes, (away - codes @ self._anchor_basis).square().mean(1).sqrt())

    def clouds(self, codes: Float[Tensor, "B R"]) -> Iterator[GaussianCloud]:
        """The deformed Gaussians of each frame; they share the memory of all frames that are asked for together."""
        for values in torch.addmm(self._mean, codes, self._basis):
            parts = values.split([shape.numel() for shape in self._shapes.values()])
            moved = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
            yield replace(self._layer.cloud, **moved)


def fit_basis(
    layer: FieldLayer, samples: Conditions, rank: int, num_anchors: int, generator: torch.Generator
) -> DeformationBasis:
    """Find the basis in the layer's outputs at some frames.

    Args:
        layer: head or torso.
        samples: frames like those that are to be rendered, several times as many as `rank`.
        rank: most numbers in a code; fewer where the outputs have fewer dimensions.
        num_anchors: Gaussians at which the field is still evaluated in every frame.
        generator: draws the anchors.
    """
    count = len(layer.cloud)
    order = torch.randperm(count, generator=generator).to(layer.steps.device)
    blocks = order.split(_BLOCK)
    first = _outputs(layer, samples, blocks[0])
    directions = _frame_space((first - first.mean(0)) * layer.weights, rank)
    mean = layer.steps.new_empty(count, len(layer.steps))
    basis = layer.steps.new_empty(directions.shape[1], *mean.shape)
    for block in blocks:
        values = first if block is blocks[0] else _outputs(layer, samples, block)
        mean[block] = values.mean(0)
        basis[:, block] = torch.tensordot(directions.T, values - mean[block], dims=1)
    return DeformationBasis(layer, mean, basis, order[:num_anchors])


def _frame_space(away: Float[Tensor, "F n K"], rank: int) -> Float[Tensor, "F R"]:
    """Orthonormal directions over the frames, those of the largest singular values."""
    rows = away.flatten(1).double()
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = min(rank, int((values > _SMALLEST_EIGENVALUE * values[-1]).sum()))
    return vectors.flip(1)[:, :kept].to(away.dtype)


def _outputs(layer: FieldLayer, samples: Conditions, chosen: Int[Tensor, "n"]) -> Float[Tensor, "F n K"]:
    frames = range(0, len(samples.audio), _FRAMES_AT_ONCE)
    return torch.cat([layer.outputs(samples.take(slice(start, start + _FRAMES_AT_ONCE)), chosen) for start in frames])
