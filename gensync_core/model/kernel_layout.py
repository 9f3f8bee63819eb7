"""Sizes that the model's CPU kernels share with the code around them, which must also load where there is no numba."""

# Hash tri-plane.
NUM_FEATURES = 2
"""Features a row that the kernels take."""
HASH_PRIME = 2654435761
POINT_BLOCK = 512
"""Points that are located together, and the work item where points are shared out."""
GROUP = 4
"""Most units of a work item of the backward pass, all of one plane."""

# Head field.
LANES = 8
"""Lanes of one head's logits: the most tokens there can be."""
COLUMNS = 16
"""Columns of a tile in the matrix products."""
ROWS = 4
"""Rows of a tile: with sixteen columns each, as many running sums as keep the multipliers busy."""
CHUNK = 512
"""Points of a work item."""
SLOPE = 0.02
"""Of the leaky ReLU."""


def padded_width(columns: int) -> int:
    """The next width that the head field's kernels take."""
    return -(-columns // COLUMNS) * COLUMNS
