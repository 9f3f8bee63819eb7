"""Multi-resolution hash tri-plane: three 2-D hash grids (xy, yz, zx) of features over the canonical box [-1, 1]^3.

Source: GSTalker's tri-plane with Instant-NGP's multi-resolution hash encoding. Levels whose whole grid fits are stored
directly, without hashing and no larger than needed. float32 on the CPU with two features a row, the usual case, runs in
kernels, all else in plain torch.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks, why_not_available
from gensync_core.model.kernel_layout import GROUP, HASH_PRIME, NUM_FEATURES, POINT_BLOCK

PLANES = ((0, 1), (1, 2), (2, 0))
_INITIAL_RANGE = 1e-4


class Units(NamedTuple):
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
        self._units = Units(
            starts=np.concatenate([[0], np.cumsum(np.tile(rows, 3))])[:-1].astype(np.int64),
            resolutions=np.tile(resolutions, 3).astype(np.int32),
            masks=np.tile(np.where(grid_rows > table_rows, table_rows - 1, 0), 3).astype(np.uint32),
            axes=np.repeat(np.array(PLANES), levels, axis=0).astype(np.int64),
        )
        # What a thread of the backward pass takes: some levels of one plane.
        self._groups = np.array(
            [plane * levels + level for plane in range(3) for level in range(0, levels, GROUP)] + [3 * levels], np.int64
        )
        self.out_size = 3 * levels * features_per_level
        self.table = nn.Parameter(torch.empty(3 * int(rows.sum()), features_per_level))
        nn.init.uniform_(self.table, -_INITIAL_RANGE, _INITIAL_RANGE)

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """Features of points in [-1, 1]^3 (limited to it), with gradients to the table and to the points."""
        if self._runs_kernels(points):
            return _EncodeOnCpu.apply(points, self.table, self._units, self._groups, self.out_size)
        return encode_with_torch(points, self.table, self._units)

    def with_positions(
        self, points: Float[Tensor, "N 3"], constants: Float[Tensor, "N"], width: int
    ) -> Float[Tensor, "N width"]:
        """Features, the position itself, a column of constants, and zeros up to `width` columns; no copies on the CPU."""
        if self._runs_kernels(points):
            return _EncodeOnCpu.apply(points, self.table, self._units, self._groups, width, constants)
        return beside_positions(encode_with_torch(points, self.table, self._units), points, constants, width)

    def _runs_kernels(self, points: Tensor) -> bool:
        return (
            points.device.type == "cpu"
            and points.dtype == self.table.dtype == torch.float32
            and self.table.shape[1] == NUM_FEATURES
            and why_not_available() is None
        )


class _EncodeOnCpu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        table: Tensor,
        units: Units,
        groups: np.ndarray,
        width: int,
        constants: Tensor | None = None,
    ) -> Tensor:
        from gensync_core.model.hash_kernels import encode_points  # which needs numba to be defined

        points, table = points.detach().contiguous(), table.detach().contiguous()
        features = np.empty((len(points), width), np.float32)
        blocks = -(-len(points) // POINT_BLOCK)
        run_in_chunks(encode_points, blocks, points.numpy(), table.numpy().reshape(-1), *units, features)
        if constants is not None:
            features[:, NUM_FEATURES * len(units.starts) + 3] = constants.numpy()
        ctx.save_for_backward(points, table)
        ctx.units, ctx.groups = units, groups
        return torch.from_numpy(features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from gensync_core.model.hash_kernels import encode_backward, sum_position_gradients

        points, table = (tensor.numpy() for tensor in ctx.saved_tensors)
        units, groups, wants_positions = ctx.units, ctx.groups, ctx.needs_input_grad[0]
        num_points, num_groups = len(points), len(groups) - 1
        g_features = grad_outputs[0].contiguous().numpy()
        g_table = np.zeros(table.size, np.float32)
        g_coordinates = np.empty((num_groups, 2, num_points if wants_positions else 0), np.float32)
        run_in_chunks(
            encode_backward, num_groups, points, table.reshape(-1), *units, groups, g_features, g_table, g_coordinates
        )
        g_points = None
        if wants_positions:
            g_points = np.empty_like(points)
            run_in_chunks(
                sum_position_gradients, -(-num_points // POINT_BLOCK), units.axes, groups, NUM_FEATURES * len(units.starts),
                g_features, g_coordinates, g_points,
            )  # fmt: skip
            g_points = torch.from_numpy(g_points)
        return g_points, torch.from_numpy(g_table.reshape(table.shape)), None, None, None, None


def beside_positions(
    features: Float[Tensor, "N F"], points: Float[Tensor, "N 3"], constants: Float[Tensor, "N"], width: int
) -> Float[Tensor, "N width"]:
    """Features, the position itself, a column of constants, and zeros up to `width` columns."""
    columns = torch.cat([features, points, constants[:, None]], dim=1)
    return nn.functional.pad(columns, (0, width - columns.shape[1]))


def encode_with_torch(points: Float[Tensor, "N 3"], table: Float[Tensor, "rows F"], units: Units) -> Float[Tensor, "N K"]:
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
