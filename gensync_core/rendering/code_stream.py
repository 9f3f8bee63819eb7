"""Audio codes of speech whose features come piece by piece, each as soon as its window is there.

Shapes: F frames of a piece, D feature size, B frames, A audio code.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.model.gensync import GenSync
from gensync_core.model.model_params import ModelParams


class Reach(NamedTuple):
    """How many frames before and after its own an audio code hears."""

    past: int
    future: int


def reach(params: ModelParams) -> Reach:
    """Reach of the network's windows: neighbour n of W is centred at n - W // 2 and covers half a window either side."""
    past = params.neighbours // 2 + params.window_size // 2
    return Reach(past, params.neighbours + params.window_size - 2 - past)


def stream_codes(
    network: GenSync, blocks: Iterable[Float[np.ndarray, "_ D"]], batch_frames: int
) -> Iterator[Float[Tensor, "B A"]]:
    """Codes of consecutive frames, at most `batch_frames` together; beyond the ends the first or last feature is repeated.

    They are those of the whole speech at once: what is held is a block and a window.
    """
    past, future = reach(network.params)
    device = network.mean_identity.device
    held = torch.empty(0, network.feature_size, device=device)
    first = done = 0

    def codes(ready: int) -> Iterator[Tensor]:
        nonlocal done
        while done < ready:
            frames = torch.arange(done, min(done + batch_frames, ready), device=device)
            done += len(frames)
            yield network.encode_audio(held, frames - first)

    for block in blocks:
        held = torch.cat([held, torch.from_numpy(np.ascontiguousarray(block)).float().to(device)])
        yield from codes(first + len(held) - future)
        unneeded = max(0, done - past - first)
        held, first = held[unneeded:].clone(), first + unneeded
    yield from codes(first + len(held))
