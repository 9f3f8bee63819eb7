"""Multi-resolution planes without hashing: three feature images (xy, yz, zx) a level over the canonical box [-1, 1]^3.

For the comparison with `hash_triplane`, whose place it takes. Source: tri-plane of EG3D, levels of K-Planes; sizes are our
own choice.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gensync_core.model.hash_triplane import PLANES, Units, beside_positions, encode_with_torch

_INITIAL_RANGE = 1e-4


class DenseTriplane(nn.Module):
    """Features of points in the canonical box, interpolated bilinearly; a side doubles from level to level.

    Attributes:
        table: all features [rows, F]; level after level, of a level plane after plane, of a plane row after row.
        resolutions: cells a side of each level, the finest first.
        out_size: width of the result, 3 * levels * features_per_level.
    """

    def __init__(self, levels: int, features_per_level: int, num_parameters: int) -> None:
        """The finest level gets as many cells as `num_parameters` allow.

        Raises:
            ValueError: a size is not positive, or there are too few parameters for a cell a side of each plane.
        """
        super().__init__()
        if min(levels, features_per_level) < 1:
            raise ValueError(f"levels and features_per_level must be positive, got {levels} and {features_per_level}")
        self.resolutions = _resolutions(levels, num_parameters // (3 * features_per_level))
        rows = np.repeat((np.array(self.resolutions) + 1) ** 2, 3)
        self._units = Units(
            starts=np.concatenate([[0], np.cumsum(rows)[:-1]]).astype(np.int64),
            resolutions=np.repeat(self.resolutions, 3).astype(np.int32),
            masks=np.zeros(3 * levels, np.uint32),
            axes=np.tile(np.array(PLANES), (levels, 1)).astype(np.int64),
        )
        self.out_size = 3 * levels * features_per_level
        self.table = nn.Parameter(torch.empty(int(rows.sum()), features_per_level))
        nn.init.uniform_(self.table, -_INITIAL_RANGE, _INITIAL_RANGE)

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """Features of points in [-1, 1]^3 (limited to it), with gradients to the table and to the points."""
        if points.device.type != "cpu":
            # On CUDA the gradient of `grid_sample` differs from run to run.
            return encode_with_torch(points, self.table, self._units)
        places = points.clamp(-1, 1)[:, torch.tensor(PLANES)].transpose(0, 1)[:, None]  # [3, 1, N, 2]
        sides = [resolution + 1 for resolution in self.resolutions]
        levels = self.table.split([3 * side**2 for side in sides])
        images = [
            level.view(3, side, side, -1).permute(0, 3, 1, 2).contiguous() for level, side in zip(levels, sides, strict=True)
        ]
        found = [nn.functional.grid_sample(image, places, padding_mode="border", align_corners=True) for image in images]
        return torch.cat(found).squeeze(2).permute(2, 0, 1).flatten(1)

    def with_positions(
        self, points: Float[Tensor, "N 3"], constants: Float[Tensor, "N"], width: int
    ) -> Float[Tensor, "N width"]:
        """Features, the position itself, a column of constants, and zeros up to `width` columns."""
        return beside_positions(self(points), points, constants, width)


def _resolutions(levels: int, rows: int) -> list[int]:
    """Cells a side, the finest first and at least one, so that planes of all levels have at most `rows` points together."""
    best: list[int] = []
    for finest in range(1, int(max(rows, 0) ** 0.5) + 1):
        sizes = [max(finest >> level, 1) for level in range(levels)]
        if sum((size + 1) ** 2 for size in sizes) > rows:
            break
        best = sizes
    if not best:
        raise ValueError(f"{rows} points a plane are too few for {levels} levels")
    return best
