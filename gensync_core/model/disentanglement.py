"""Disentanglement Module: identity and audio meet in a low-rank product.

Shapes: B frames, Z identity code (64), A audio code (64), H output (64).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Fusion = Literal["product", "add", "none"]


class Disentanglement(nn.Module):
    """h = C((U1 z) * (U2 a)) + W1 z + W2 a, with a true elementwise product of rank 32.

    `fusion="add"` replaces the product by a sum and `"none"` drops identity: both for ablations.
    Source: GenSync disentanglement module.
    """

    def __init__(
        self, identity_size: int = 64, audio_size: int = 64, out_size: int = 64, rank: int = 32, fusion: Fusion = "product"
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.identity_factor = nn.Linear(identity_size, rank, bias=False)  # U1
        self.audio_factor = nn.Linear(audio_size, rank, bias=False)  # U2
        self.core = nn.Linear(rank, out_size, bias=False)  # C
        self.identity_skip = nn.Linear(identity_size, out_size, bias=False)  # W1
        self.audio_skip = nn.Linear(audio_size, out_size)  # W2

    def forward(self, identity: Float[Tensor, "B Z"], audio: Float[Tensor, "B A"]) -> Float[Tensor, "B H"]:
        if self.fusion == "none":
            return self.audio_skip(audio)
        left, right = self.identity_factor(identity), self.audio_factor(audio)
        fused = left * right if self.fusion == "product" else left + right
        return self.core(fused) + self.identity_skip(identity) + self.audio_skip(audio)


class CodeModulation(nn.Module):
    """Scale and shift of a decoder's hidden layer from a code (AdaIN without the normalisation).

    Starts as the identity map. Source: GenSync identity modulation; own choice to use it for the fused code, too.
    """

    def __init__(self, code_size: int, hidden_size: int) -> None:
        super().__init__()
        self.affine = nn.Linear(code_size, 2 * hidden_size)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, hidden: Float[Tensor, "B N C"], code: Float[Tensor, "B Z"]) -> Float[Tensor, "B N C"]:
        scale, shift = self.affine(code)[:, None].chunk(2, dim=-1)
        return hidden * (1 + scale) + shift


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        return -grad


class SpeakerClassifier(nn.Module):
    """Guesses the speaker from the audio code; its gradient is reversed, so the encoder unlearns who speaks.

    Source: GenSync disentanglement, with gradient reversal (Ganin and Lempitsky, 2015).
    """

    def __init__(self, audio_size: int, num_speakers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(audio_size, 32), nn.LeakyReLU(0.02), nn.Linear(32, num_speakers))

    def forward(self, audio: Float[Tensor, "B A"]) -> Float[Tensor, "B P"]:
        return self.layers(_ReverseGradient.apply(audio))
