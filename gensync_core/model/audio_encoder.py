"""Speech features around a frame -> one audio vector a frame.

Shapes: B frames, W neighbours (8), D feature size (384 for Whisper tiny.en), S window size (16), A audio code (64).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FeatureStandardiser(nn.Module):
    """Per-dimension mean and deviation of the cohort's training speech, kept with the shared weights.

    Speech encoders have a few dimensions a hundred times larger than the rest; without this they drown the others.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("std", torch.ones(feature_size))

    def fit(self, features: Float[Tensor, "T D"]) -> None:
        """Take the statistics of all training frames of the cohort."""
        self.mean.copy_(features.mean(0))
        self.std.copy_(features.std(0).clamp_min(1e-4))

    def forward(self, windows: Float[Tensor, "B W D S"]) -> Float[Tensor, "B W D S"]:
        return (windows - self.mean[:, None]) / self.std[:, None]


class AudioEncoder(nn.Module):
    """Strided convolutions over each window, then attention pooling over the neighbours (temporal smoothing).

    Source: GSTalker temporal smooth module; the layout follows AD-NeRF's audio and attention nets, with a linear
    bottleneck first because two minutes of speech do not fill 384 dimensions (own choice).
    """

    def __init__(
        self, feature_size: int, code_size: int = 64, neighbours: int = 8, bottleneck: int = 48, smoothing: bool = True
    ) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.bottleneck = nn.Linear(feature_size, bottleneck)
        layers: list[nn.Module] = []
        channels = bottleneck
        for width in (48, 48, code_size, code_size):
            layers += [nn.Conv1d(channels, width, kernel_size=3, stride=2, padding=1), nn.LeakyReLU(0.02)]
            channels = width
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Linear(code_size, code_size)
        self.pooling = nn.Sequential(
            nn.Conv1d(code_size, 16, 3, padding=1),
            nn.LeakyReLU(0.02),
            nn.Conv1d(16, 4, 3, padding=1),
            nn.LeakyReLU(0.02),
            nn.Conv1d(4, 1, 3, padding=1),
        )
        self.normalise = nn.LayerNorm(code_size)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):  # torch's default halves the signal at every layer
                nn.init.kaiming_normal_(module.weight, a=0.02, nonlinearity="leaky_relu")
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, windows: Float[Tensor, "B W D S"]) -> Float[Tensor, "B A"]:
        """Encode standardised feature windows; neighbour W // 2 is centred on the frame itself."""
        batch, neighbours, _, size = windows.shape
        x = self.bottleneck(windows.transpose(2, 3)).reshape(batch * neighbours, size, -1)
        codes = self.project(_run(self.convolutions, x).mean(1)).reshape(batch, neighbours, -1)
        if not self.smoothing:
            return self.normalise(codes[:, neighbours // 2])
        attention = torch.softmax(_run(self.pooling, codes).squeeze(-1), dim=-1)
        return self.normalise((attention[..., None] * codes).sum(1))


def _run(layers: nn.Sequential, x: Float[Tensor, "M T C"]) -> Float[Tensor, "M T_out C_out"]:
    """Apply the layers to sequences with the channels last, 1-D convolutions as products of matrices.

    A convolution over a dozen samples costs more to set up, forward and backward, than to compute.
    """
    for layer in layers:
        if isinstance(layer, nn.Conv1d):
            (width,), (stride,), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
            patches = nn.functional.pad(x, (0, 0, padding, padding)).unfold(1, width, stride)  # [M, T_out, C, width]
            x = nn.functional.linear(patches.flatten(2), layer.weight.flatten(1), layer.bias)
        else:
            x = layer(x)
    return x
