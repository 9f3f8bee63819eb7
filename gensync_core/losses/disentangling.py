"""Terms that keep identity out of the audio code and audio out of the identity code."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def speaker_confusion(logits: Float[Tensor, "B P"], speakers: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Cross-entropy of the speaker classifier, which sits behind gradient reversal (GenSync disentanglement)."""
    return torch.nn.functional.cross_entropy(logits, speakers, reduction="none")


def swap_inconsistency(own: Float[Tensor, "B N 3"], swapped: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N"]:
    """L1 between the motion of canonical mouth landmarks under two identities and the same audio (own choice).

    Each is measured against its mean over the batch: a different resting mouth is identity and may stay.
    """
    own, swapped = own - own.mean(0, keepdim=True), swapped - swapped.mean(0, keepdim=True)
    return (own.detach() - swapped).abs().sum(-1)
