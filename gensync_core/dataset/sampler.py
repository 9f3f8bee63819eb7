"""Which frames of which speakers make up a training step. Every choice is a pure function of (seed, step).

Nothing has to be stored to resume a killed training at any step.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Choice(NamedTuple):
    """One image of a batch."""

    speaker: int
    frame: int


def step_rng(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """Random numbers of one step; streams are independent of each other."""
    return np.random.default_rng([seed, stream, step])


def mixed_identities(
    seed: int, step: int, frame_weights: Sequence[Float[np.ndarray, "_"]], batch_size: int, uniform_share: float = 0.5
) -> list[Choice]:
    """`batch_size` frames of different speakers (as far as there are), drawn uniformly or by `frame_weights`.

    Args:
        seed: of the run.
        step: number of the step.
        frame_weights: per speaker, probability of each training frame (open mouths made as frequent as closed ones).
        batch_size: images a step.
        uniform_share: share of the draws that ignore the weights.
    """
    rng = step_rng(seed, step)
    order = np.concatenate([rng.permutation(len(frame_weights)) for _ in range(-(-batch_size // len(frame_weights)))])
    choices = []
    for speaker in order[:batch_size]:
        weights = frame_weights[speaker]
        uniform = rng.random() < uniform_share
        frame = rng.integers(len(weights)) if uniform else rng.choice(len(weights), p=weights)
        choices.append(Choice(int(speaker), int(frame)))
    return choices


def adjacent_pairs(seed: int, step: int, num_frames: int, pairs: int) -> np.ndarray:
    """First frames [pairs] of adjacent frame pairs, for the motion terms; `num_frames` must be at least 2."""
    return step_rng(seed, step, stream=1).integers(max(num_frames - 1, 1), size=pairs)
