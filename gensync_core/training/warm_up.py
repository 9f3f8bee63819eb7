"""Compile everything that is compiled on first use: the CPU kernels, or gsplat's CUDA code."""

import logging
import time

import torch

from gensync_core.errors import UsageError
from gensync_core.gaussians.backends.cpu_runtime import cache_folder
from gensync_core.gaussians.rasterize import Backend, choose_backend, rasterize
from gensync_core.gaussians.render_params import RenderParams
from gensync_core.losses.layer_loss import Emphasis, Truth, layer_loss
from gensync_core.losses.photometric import l1_ssim
from gensync_core.model.hash_triplane import HashTriplane
from gensync_core.model.head_field import HeadField
from gensync_core.model.model_params import DEFORMABLE
from gensync_core.rendering.compositor import Layer
from gensync_core.rendering.picture import picture

_logger = logging.getLogger(__name__)


def compile_kernels() -> float:
    """Run each compiled function once, forwards and backwards, on next to nothing.

    Returns:
        Seconds it took; about a minute where nothing was compiled before, else a few.

    Raises:
        UsageError: something does not compile or run here; says how to go on.
    """
    start = time.monotonic()
    backend = choose_backend(RenderParams(backend="auto", threads=1))
    try:
        _train_on_next_to_nothing(backend)
    except Exception as error:  # compilers fail in many ways
        raise UsageError(
            f"the {backend.name} renderer does not compile or run here ({type(error).__name__}: {error}). Go on without it: "
            "render.backend: reference in params.yaml gives the same pictures, some hundred times slower"
        ) from error
    seconds = time.monotonic() - start
    _logger.info(
        "%s renderer ready after %.0f s; what was compiled is kept in %s",
        backend.name,
        seconds,
        cache_folder() or "memory only",
    )
    return seconds


def _train_on_next_to_nothing(backend: Backend) -> None:
    device = torch.device(backend.device)
    means = torch.zeros(2, 3, device=device, requires_grad=True)
    field = HeadField(
        HashTriplane(levels=2, base_resolution=4, finest_resolution=8, log2_table_size=6), 16, 16, 16, DEFORMABLE, 0.1, 0.5
    ).to(device)
    codes = (torch.ones(1, size, device=device) for size in (16, 16, 6, 12))
    moved = means + field(means[None], *codes).means[0]
    viewmats, intrinsics = torch.eye(4, device=device)[None], torch.eye(3, device=device)[None] * 16
    viewmats[0, 2, 3] = 2
    ones = torch.ones(2, device=device)
    rendered = rasterize(
        moved, ones[:, None].repeat(1, 4), ones[:, None].repeat(1, 3), ones, ones[:, None].repeat(1, 3), viewmats, intrinsics,
        width=16, height=16, backend=backend,
    )  # fmt: skip
    image, alpha = rendered.image[0], rendered.alpha[0].reshape(16, 16)
    picture(Layer(image, alpha), Layer(image, alpha), torch.zeros(16, 16, 3, device=device))
    pixels = torch.zeros(16, 16, 4, dtype=torch.uint8, device=device)
    truth = Truth(pixels[..., :3], pixels[..., 3], torch.zeros(256, device=device))
    photometric, coverage = layer_loss(image, alpha, truth, torch.zeros(3, device=device), 0.2, Emphasis((0, 0, 8, 8), 1.0))
    (l1_ssim(image, torch.zeros_like(image)) + photometric + coverage).backward()
