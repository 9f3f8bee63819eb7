"""Multi-resolution hash tri-plane: three 2-D hash grids (xy, yz, zx) of features over the canonical box [-1, 1]^3.

Source: GSTalker's tri-plane with Instant-NGP's multi-resolution hash encoding. Levels whose whole grid fits are stored
directly, without hashing and no larger than needed.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks
from gensync_core.model.hash_kernels import (
    HASH_PRIME,
    POINT_BLOCK,
    encode_units,
    encode_units_backward,
    sum_position_gradients,
)

PLANES = ((0, 1), (1, 2), (2, 0))
_INITIAL_RANGE = 1e-4


class _Units(NamedTuple):
    """Layout of the table; a unit is one level of one plane. Arguments of the kernels, in their order."""

    starts: np.ndarray
    resolutions: np.ndarray
    masks: np.ndarray
    axes: np.ndarray


class HashTriplane(nn.Module):
    """Features of points in the canonical box.

    Attributes:
        table: all features [rows, F]; unit after unit, all levels of a plane together.
        out_size: width of the result, 3 * levels * features_per_level.
    """

    def __init__(
        self, levels: int, base_resolution: int, finest_resolution: int, log2_table_size: int, features_per_level: int = 2
    ) -> None:
        """Resolutions grow geometrically from `base_resolution` to `finest_resolution` cells a side.

        Raises:
            ValueError: a size is not positive, the finest level is coarser than the base, or the table is beyond 2^24.
        """
        super().__init__()
        if min(levels, base_resolution, features_per_level) < 1 or finest_resolution < base_resolution:
            raise ValueError(
                f"levels, base_resolution, features_per_level must be positive and finest_resolution at least the base, got "
                f"{levels}, {base_resolution}, {features_per_level}, {finest_resolution}"
            )
        if not 1 <= log2_table_size <= 24:
            raise ValueError(f"log2_table_size must lie in 1..24, got {log2_table_size}")
        steps = np.arange(levels) / max(levels - 1, 1)
        resolutions = np.round(base_resolution * (finest_resolution / base_resolution) ** steps).astype(np.int64)
        grid_rows, table_rows = (resolutions + 1) ** 2, 2**log2_table_size
        rows = np.minimum(grid_rows, table_rows)
        self._units = _Units(
            starts=np.concatenate([[0], np.cumsum(np.tile(rows, 3))])[:-1].astype(np.int64),
            resolutions=np.tile(resolutions, 3).astype(np.int32),
            masks=np.tile(np.where(grid_rows > table_rows, table_rows - 1, 0), 3).astype(np.uint32),
            axes=np.repeat(np.array(PLANES), levels, axis=0).astype(np.int64),
        )
        self.out_size = 3 * levels * features_per_level
        self.table = nn.Parameter(torch.empty(3 * int(rows.sum()), features_per_level))
        nn.init.uniform_(self.table, -_INITIAL_RANGE, _INITIAL_RANGE)

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """Features of points in [-1, 1]^3 (limited to it), with gradients to the table and to the points."""
        if points.device.type == "cpu" and points.dtype == self.table.dtype == torch.float32:
            return _EncodeOnCpu.apply(points, self.table, self._units)
        return encode_with_torch(points, self.table, self._units)


class _EncodeOnCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, units: _Units) -> Tensor:
        points, table = points.detach().contiguous(), table.detach().contiguous()
        num_units = len(units.starts)
        features = np.empty((len(points), num_units, table.shape[1]), np.float32)
        run_in_chunks(encode_units, num_units, points.numpy(), table.numpy(), *units, features)
        ctx.save_for_backward(points, table)
        ctx.units = units
        return torch.from_numpy(features.reshape(len(points), num_units * table.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        points, table = (tensor.numpy() for tensor in ctx.saved_tensors)
        units, wants_positions = ctx.units, ctx.needs_input_grad[0]
        num_units, num_points = len(units.starts), len(points)
        g_features = grad_outputs[0].contiguous().numpy().reshape(num_points, num_units, table.shape[1])
        g_table = np.zeros_like(table)
        g_coordinates = np.empty((num_units, num_points if wants_positions else 0, 2), np.float32)
        run_in_chunks(encode_units_backward, num_units, points, table, *units, g_features, g_table, g_coordinates)
        if not wants_positions:
            return None, torch.from_numpy(g_table), None
        g_points = np.empty_like(points)
        run_in_chunks(sum_position_gradients, -(-num_points // POINT_BLOCK), units.axes, g_coordinates, g_points)
        return torch.from_numpy(g_points), torch.from_numpy(g_table), None


def encode_with_torch(points: Float[Tensor, "N 3"], table: Float[Tensor, "rows F"], units: _Units) -> Float[Tensor, "N K"]:
    """The same in plain torch: for CUDA, other dtypes, and as the oracle of the kernels."""
    on_device = {name: torch.as_tensor(array.astype(np.int64), device=points.device) for name, array in units._asdict().items()}
    resolution, mask = on_device["resolutions"][:, None], on_device["masks"]
    scaled = (points.clamp(-1, 1)[:, on_device["axes"]] + 1) * (0.5 * resolution)  # [N, units, 2]
    cell = torch.minimum(scaled.detach().long(), resolution - 1)
    within = scaled - cell
    features = torch.zeros(len(points), len(mask), table.shape[1], dtype=table.dtype, device=table.device)
    for right in (0, 1):
        for up in (0, 1):
            x, y = cell[..., 0] + right, cell[..., 1] + up
            # The kernels hash in 32 bit; the mask keeps fewer bits than that.
            hashed = (x ^ (y * HASH_PRIME)) & mask
            rows = on_device["starts"] + torch.where(mask == 0, y * (resolution[:, 0] + 1) + x, hashed)
            weight_x = within[..., 0] if right else 1 - within[..., 0]
            weight_y = within[..., 1] if up else 1 - within[..., 1]
            features = features + (weight_x * weight_y)[..., None] * table[rows]
    return features.flatten(1)
