"""What the audio encoder of the network reads: short windows of features around each frame and its neighbours."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def window(
    features: Float[Tensor, "T D"], frames: Int[Tensor, "B"], neighbours: int = 8, size: int = 16
) -> Float[Tensor, "B neighbours D size"]:
    """Windows of `size` frames around `neighbours` consecutive frames.

    Neighbour n is centred at c = frame + n - neighbours // 2 and covers frames [c - size // 2, c + size // 2); outside of
    the clip the first or last feature is repeated.

    Source: the layout of AD-NeRF's audio net; own choice of edge handling.
    """
    if neighbours < 1 or size < 2 or size % 2:
        raise ValueError(f"neighbours is {neighbours} and size is {size}; expected at least 1 and an even number")
    device = features.device
    centres = frames.to(device)[:, None] + torch.arange(neighbours, device=device) - neighbours // 2
    covered = centres[:, :, None] + torch.arange(size, device=device) - size // 2
    return features[covered.clamp(0, len(features) - 1)].transpose(2, 3)
