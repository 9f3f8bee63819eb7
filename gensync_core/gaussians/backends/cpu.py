"""Rasterizer on a CPU: numba kernels behind one autograd function.

project -> sort by depth -> bin into tiles -> blend tiles; backwards: tiles leave moments per (splat, tile), which the
projection's gradient sums in a fixed order. Same bits for any number of threads.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gensync_core.gaussians.backends import cpu_layout as layout
from gensync_core.gaussians.backends.cpu_binning import bin_into_tiles, find_rows, first_slots, sort_by_depth
from gensync_core.gaussians.backends.cpu_projection import project_splats, project_splats_backward
from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks
from gensync_core.gaussians.backends.cpu_tiles import blend_tiles, blend_tiles_backward

_MAX_SLOTS = 2**31 - 1


class _Splats(NamedTuple):
    """Projected splats, their tiles (see `cpu_layout` for the columns), and what goes out as screen data."""

    records: np.ndarray
    slot_starts: np.ndarray
    slot_entries: np.ndarray
    tile_starts: np.ndarray
    entry_splats: np.ndarray
    entry_rows: np.ndarray
    tiles_x: int
    num_tiles: int
    means2d: np.ndarray
    radii: np.ndarray
    depths: np.ndarray


def camera_vector(viewmat: Tensor, intrinsics: Tensor, width: int, height: int) -> np.ndarray:
    """World to camera [4, 4] and K [3, 3] as the kernels read them.

    x/z is limited to 15% of the image beyond its border, as in gsplat: further out the linearised projection explodes.
    """
    # Lists: for so few numbers they are several times quicker than tensors or arrays.
    (*row_x, t_x), (*row_y, t_y), (*row_z, t_z), _ = viewmat.tolist()
    (fx, _, cx), (_, fy, cy), _ = intrinsics.tolist()
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    limits_x = (width - cx) / fx + margin_x, -cx / fx - margin_x
    limits_y = (height - cy) / fy + margin_y, -cy / fy - margin_y
    # The order of the columns in `cpu_layout`.
    values = [*row_x, *row_y, *row_z, t_x, t_y, t_z, fx, fy, cx, cy, *limits_x, *limits_y, width, height]
    return np.array(values, np.float32)


def _blocks(num_splats: int) -> int:
    return -(-num_splats // layout.BLOCK)


def _project_and_bin(inputs: tuple[np.ndarray, ...], camera: np.ndarray, width: int, height: int, threads: int) -> _Splats:
    num_splats = len(inputs[0])
    tiles_x, tiles_y = -(-width // layout.TILE_WIDTH), -(-height // layout.TILE_HEIGHT)
    records, depths = np.empty((num_splats, layout.REC_SIZE), np.float32), np.empty(num_splats, np.float32)
    means2d, radii = np.empty((num_splats, 2), np.float32), np.empty((num_splats, 2), np.int32)
    tile_rects, tile_counts = np.empty((num_splats, 4), np.int32), np.empty(num_splats, np.int32)
    run_in_chunks(
        project_splats, _blocks(num_splats), *inputs, camera, tiles_x, tiles_y,
        records, depths, means2d, radii, tile_rects, tile_counts, threads=threads,
    )  # fmt: skip
    slot_starts = np.empty(num_splats + 1, np.int32)
    num_slots = first_slots(tile_counts, slot_starts)
    if num_slots > _MAX_SLOTS:
        raise ValueError(f"the splats cover {num_slots} tiles in all: their scales are far too large for this camera")
    slot_rows = np.empty((num_slots, 2), np.int8)
    run_in_chunks(find_rows, _blocks(num_splats), records, tile_rects, slot_starts, height, slot_rows, threads=threads)
    order = np.empty(num_splats, np.int32)
    visible = sort_by_depth(depths.view(np.uint32), tile_counts, order)
    num_tiles = tiles_x * tiles_y
    tile_starts = np.empty(num_tiles + 1, np.int32)
    entry_splats, entry_rows = np.empty(num_slots, np.int32), np.empty((num_slots, 2), np.int8)
    slot_entries = np.empty(num_slots, np.int32)
    bin_into_tiles(
        order, visible, tile_rects, slot_starts, slot_rows, tiles_x, tile_starts, entry_splats, entry_rows, slot_entries
    )
    return _Splats(
        records, slot_starts, slot_entries, tile_starts, entry_splats, entry_rows, tiles_x, num_tiles, means2d, radii, depths
    )


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        shift: Tensor | None,
        camera: np.ndarray,
        width: int,
        height: int,
        threads: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        inputs = tuple(tensor.detach().contiguous() for tensor in (means, quats, scales, opacities, colors))
        splats = _project_and_bin(tuple(tensor.numpy() for tensor in inputs), camera, width, height, threads)
        image, alpha = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
        entries_used = np.empty(splats.num_tiles, np.int32)
        run_in_chunks(
            blend_tiles, splats.num_tiles, splats.records, splats.entry_splats, splats.entry_rows,
            splats.tile_starts, splats.tiles_x, image, alpha, entries_used, threads=threads,
        )  # fmt: skip
        outputs = torch.from_numpy(image), torch.from_numpy(alpha)
        screen = torch.from_numpy(splats.means2d), torch.from_numpy(splats.radii), torch.from_numpy(splats.depths)
        ctx.save_for_backward(*inputs[:3], *outputs)
        ctx.rest = splats, camera, threads, entries_used
        ctx.mark_non_differentiable(*screen)
        return *outputs, *screen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_image: Tensor, g_alpha: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        means, quats, scales, image, alpha = (tensor.numpy() for tensor in ctx.saved_tensors)
        splats, camera, threads, entries_used = ctx.rest
        num_splats = len(means)
        moments = np.empty((splats.tile_starts[-1], layout.MOMENTS), np.float32)
        run_in_chunks(
            blend_tiles_backward, splats.num_tiles, splats.records, splats.entry_splats, splats.entry_rows,
            splats.tile_starts, splats.tiles_x, image, alpha, entries_used,
            g_image.contiguous().numpy(), g_alpha.contiguous().numpy(), moments, threads=threads,
        )  # fmt: skip
        shapes = (num_splats, 3), (num_splats, 4), (num_splats, 3), (num_splats,), (num_splats, 3)
        gradients = [np.empty(shape, np.float32) for shape in shapes]
        g_means2d = np.empty((num_splats, 2), np.float32)
        run_in_chunks(
            project_splats_backward, _blocks(num_splats), means, quats, scales, camera, splats.records, splats.slot_entries,
            splats.slot_starts, moments, *gradients, g_means2d, threads=threads,
        )  # fmt: skip
        g_shift = torch.from_numpy(g_means2d) if ctx.needs_input_grad[5] else None
        return *(torch.from_numpy(gradient) for gradient in gradients), g_shift, None, None, None, None


def render(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    shift: Tensor | None,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Image over black, alpha, means2d, radii, depths; shapes as in `rasterize`; colors [N, 3] or [C, N, 3].

    Raises:
        ValueError: not float32, or a gradient to the cameras is asked for.
    """
    if means.dtype != torch.float32:
        raise ValueError("the cpu backend takes float32 tensors; use the reference backend for others")
    if viewmats.requires_grad or Ks.requires_grad:
        raise ValueError("the cpu backend gives no gradient to viewmats and Ks; use the reference backend, or move the means")
    num_cameras = len(viewmats)
    colors_of = _for_each_camera(colors, num_cameras)
    shift_of = [None] * num_cameras if shift is None else _for_each_camera(shift, num_cameras)
    views = [
        _Rasterize.apply(
            means, quats, scales, opacities, colors_of[i], shift_of[i],
            camera_vector(viewmats[i], Ks[i], width, height), width, height, threads,
        )
        for i in range(num_cameras)
    ]  # fmt: skip
    # One camera, the usual case, needs no copy.
    stack = (lambda parts: parts[0][None]) if num_cameras == 1 else torch.stack
    image, alpha, means2d, radii, depths = (stack(parts) for parts in zip(*views, strict=True))
    return image, alpha, means2d, radii, depths


def _for_each_camera(tensor: Tensor, num_cameras: int) -> list[Tensor]:
    """[N, D] or [1, N, D] for every camera, [C, N, D] one by one; as views whose gradients need no copy where possible."""
    if tensor.ndim == 2 or len(tensor) == 1:
        return [tensor.reshape(tensor.shape[-2:])] * num_cameras
    return list(tensor.unbind())


def count_alpha_evaluations(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int
) -> int:
    """How many alphas, one for each pixel and splat, one forward pass works out: what its time is spent on."""
    inputs = (means, quats, scales, opacities, torch.zeros_like(means))
    arrays = tuple(tensor.detach().contiguous().numpy() for tensor in inputs)
    splats = _project_and_bin(arrays, camera_vector(viewmat, K, width, height), width, height, threads=1)
    image, alpha = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    entries_used = np.empty(splats.num_tiles, np.int32)
    blend_tiles(
        0, splats.num_tiles, splats.records, splats.entry_splats, splats.entry_rows, splats.tile_starts, splats.tiles_x,
        image, alpha, entries_used,
    )  # fmt: skip
    used = [np.arange(first, end) for first, end in zip(splats.tile_starts[:-1], entries_used, strict=True)]
    rows = splats.entry_rows[np.concatenate(used)].astype(np.int64)
    return int((rows[:, 1] - rows[:, 0] + 1).sum()) * layout.TILE_WIDTH
