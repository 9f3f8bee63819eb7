"""What the audio encoder of the network reads: short windows of features around each frame and its neighbours."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def spans(
    features: Float[Tensor, "T D"], frames: Int[Tensor, "B"], neighbours: int = 8, size: int = 16
) -> Float[Tensor, "B L D"]:
    """The L = neighbours + size - 1 features under the windows of each frame; window n is features [n, n + size) of them.

    Neighbour n is centred at c = frame + n - neighbours // 2 and its window covers frames [c - size // 2, c + size // 2);
    outside of the clip the first or last feature is repeated.

    Source: the layout of AD-NeRF's audio net; own choice of edge handling.
    """
    if neighbours < 1 or size < 2 or size % 2:
        raise ValueError(f"neighbours is {neighbours} and size is {size}; expected at least 1 and an even number")
    before = neighbours // 2 + size // 2
    offsets = torch.arange(-before, neighbours + size - 1 - before, device=features.device)
    covered = (frames.to(features.device)[:, None] + offsets).clamp_(0, len(features) - 1)
    return nn.functional.embedding(covered, features)
