"""How alike two pictures look, by features of AlexNet: LPIPS in version 0.1.

Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (2018).
Shapes: B pictures, H x W pixels, C channels of a feature.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

MIN_SIDE_PX = 31
"""Below it nothing is left of a picture after the strides of the network."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class ConvolutionShape(NamedTuple):
    """Of one layer, before which pictures are halved where `pooled`."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    pooled: bool


ALEXNET = (
    ConvolutionShape(3, 64, 11, 4, 2, pooled=False),
    ConvolutionShape(64, 192, 5, 1, 2, pooled=True),
    ConvolutionShape(192, 384, 3, 1, 1, pooled=True),
    ConvolutionShape(384, 256, 3, 1, 1, pooled=False),
    ConvolutionShape(256, 256, 3, 1, 1, pooled=False),
)


class LpipsLayer(NamedTuple):
    """Weights of one layer: `head` says how much a difference of each channel counts."""

    kernel: Float[Tensor, "C I k k"]
    bias: Float[Tensor, "C"]
    head: Float[Tensor, "C"]


class Lpips:
    """The network with frozen weights; not a module, so that no training takes them for its own.

    Args:
        layers: one for each of `ALEXNET`, on the device that is to be used.
    """

    def __init__(self, layers: Sequence[LpipsLayer]) -> None:
        # For so few pixels convolutions are many times quicker in this layout, and with both pictures at once.
        self.layers = tuple(
            layer._replace(kernel=layer.kernel.contiguous(memory_format=torch.channels_last)) for layer in layers
        )
        self.device = self.layers[0].kernel.device
        self._shift, self._scale = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))

    def __call__(self, images: Float[Tensor, "B H W 3"], targets: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B"]:
        """Distance of each pair of pictures with values in 0..1, at least 0; with a gradient to both.

        Raises:
            ValueError: a side is shorter than `MIN_SIDE_PX`.
        """
        if min(images.shape[1:3]) < MIN_SIDE_PX:
            raise ValueError(f"pictures must have at least {MIN_SIDE_PX} px a side, got {tuple(images.shape[1:3])}")
        distance = images.new_zeros(len(images))
        for layer, features in zip(self.layers, self._features(torch.cat([images, targets])), strict=True):
            one, other = _unit_length(features).chunk(2)
            difference = (one - other).square()
            distance = distance + (difference * layer.head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return distance

    def _features(self, images: Float[Tensor, "B H W 3"]) -> list[Tensor]:
        x = (2 * images.permute(0, 3, 1, 2) - 1 - self._shift) / self._scale
        features = []
        for shape, layer in zip(ALEXNET, self.layers, strict=True):
            x = functional.max_pool2d(x, 3, 2) if shape.pooled else x
            x = functional.relu(functional.conv2d(x, layer.kernel, layer.bias, shape.stride, shape.padding))
            features.append(x)
        return features


def _unit_length(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    # `vector_norm` has a gradient of 0 where all features are 0, and not NaN as a square root has.
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + _EPSILON)
