"""What an avatar is driven with besides the true sound, to know what its numbers mean."""

import numpy as np
from jaxtyping import Float


def shuffle_order(num_frames: int, shift: int) -> np.ndarray:
    """Order of frames in which the sound no longer belongs to its picture but is still speech.

    The segment is rotated by `shift` frames (half of itself where it is too short for that); then every two neighbouring
    blocks of half the shift change places. Speech stays continuous within a block, and every frame gets sound from at
    least half a shift away. The same arguments give the same order.

    Returns:
        Permutation [num_frames]: output frame t is driven by the sound of frame order[t].
    """
    shift = min(shift, num_frames // 2)
    rotated = np.roll(np.arange(num_frames), -shift)
    block = max(shift // 2, 1)
    blocks = [rotated[start : start + block] for start in range(0, num_frames, block)]
    for index in range(0, len(blocks) - 1, 2):
        blocks[index], blocks[index + 1] = blocks[index + 1], blocks[index]
    return np.concatenate(blocks) if blocks else rotated


def shuffled_features(features: Float[np.ndarray, "T D"], first: int, num_frames: int, shift: int) -> Float[np.ndarray, "T D"]:
    """Features of a clip whose frames first .. first + num_frames - 1 are reordered by `shuffle_order`."""
    result = features.copy()
    result[first : first + num_frames] = features[first + shuffle_order(num_frames, shift)]
    return result
