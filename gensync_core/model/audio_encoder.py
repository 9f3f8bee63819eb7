"""Speech features around a frame -> one audio vector a frame.

Shapes: B frames, W neighbours, S window size, L = W + S - 1 frames of a span, D feature size (384 for Whisper tiny.en),
C bottleneck (48), A audio code (64); M sequences of T samples.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SLOPE = 0.02
"""Of the leaky ReLU, below 0."""


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

    def forward(self, features: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return (features - self.mean) / self.std


class AudioEncoder(nn.Module):
    """A linear map of each window of features, then attention pooling over the neighbours (temporal smoothing).

    Without smoothing there is one window as long as all neighbours' together. The bottleneck comes first because two
    minutes of speech do not fill 384 dimensions. Strided convolutions over the windows, as in AD-NeRF's audio net, learn
    a few minutes of speech by heart: docs/log.md.

    Source: GSTalker temporal smooth module, pooling after AD-NeRF; linear windows are our own choice.
    """

    def __init__(
        self,
        feature_size: int,
        code_size: int = 64,
        neighbours: int = 4,
        window_size: int = 8,
        bottleneck: int = 48,
        smoothing: bool = True,
    ) -> None:
        super().__init__()
        self.size = window_size if smoothing else neighbours + window_size - 1
        self.bottleneck = nn.Linear(feature_size, bottleneck)
        self.window = nn.Linear(self.size * bottleneck, code_size)
        self.pooling: nn.Module | None = None
        if smoothing:
            self.pooling = nn.Sequential(
                nn.Conv1d(code_size, 16, 3, padding=1),
                nn.LeakyReLU(_SLOPE),
                nn.Conv1d(16, 4, 3, padding=1),
                nn.LeakyReLU(_SLOPE),
                nn.Conv1d(4, 1, 3, padding=1),
            )
        self.normalise = nn.LayerNorm(code_size)

    def forward(
        self, spans: Float[Tensor, "B L D"], noise: float = 0.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B A"]:
        """Encode standardised features, see `audio.windows.spans`; neighbour W // 2 is centred on the frame itself.

        `noise` is the deviation of normal noise on the features, drawn anew for every sample of every window.
        """
        # Windows overlap: the bottleneck reads each feature once, and the windows are cut from what it puts out.
        windows = self.bottleneck(spans).unfold(1, self.size, 1).mT
        if noise > 0:
            windows = windows + noise * self._noise(windows.shape, generator)
        codes = self.window(windows.flatten(2))
        if self.pooling is None:
            return self.normalise(codes.squeeze(1))
        attention = torch.softmax(self.pooling(codes.mT), dim=-1)
        return self.normalise(torch.bmm(attention, codes).squeeze(1))

    def _noise(self, shape: torch.Size, generator: torch.Generator | None) -> Float[Tensor, "B W S C"]:
        """What normal noise on the features adds to what the bottleneck puts out.

        Only the part of the noise in the span of the weight's rows, of which there are far fewer than features, gets through:
        drawn by itself, along an orthonormal basis, it is distributed as in noise on all features. The weight's gradient is
        what that noise would give, averaged over the part that does not get through (own choice).
        """
        weight = self.bottleneck.weight
        basis = torch.linalg.qr(weight.detach().T).Q
        draws = torch.randn(*shape[:-1], basis.shape[1], generator=generator, dtype=weight.dtype).to(weight.device)
        return nn.functional.linear(draws, weight @ basis)
