"""Which frames of which speakers make up a training step. Every choice is a pure function of (seed, step).

Nothing has to be stored to resume a killed training at any step.
"""

import math
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
    return _mixed(step_rng(seed, step), frame_weights, batch_size, uniform_share)


def with_replay(
    seed: int,
    step: int,
    frame_weights: Sequence[Float[np.ndarray, "_"]],
    batch_size: int,
    *,
    num_old: int,
    replay_share: float,
) -> list[Choice]:
    """A batch of old and new speakers, of which the first `num_old` are old, drawn as in `mixed_identities` within each group.

    Over consecutive steps `replay_share` of all images are of old speakers, to within one image: with half of one image a
    step every second one. Where a group is empty, all images are of the other.
    """
    old_until = [math.floor(replay_share * batch_size * done + 1e-9) for done in (step, step + 1)]
    count = old_until[1] - old_until[0]
    if num_old in (0, len(frame_weights)):
        count = batch_size if num_old else 0
    rng = step_rng(seed, step)
    old = _mixed(rng, frame_weights[:num_old], count)
    new = _mixed(rng, frame_weights[num_old:], batch_size - count)
    return old + [Choice(num_old + choice.speaker, choice.frame) for choice in new]


def _mixed(
    rng: np.random.Generator, frame_weights: Sequence[np.ndarray], batch_size: int, uniform_share: float = 0.5
) -> list[Choice]:
    if batch_size == 0:
        return []
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
