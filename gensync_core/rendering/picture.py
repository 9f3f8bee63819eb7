"""From rendered layers to the bytes of a frame."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks, why_not_available
from gensync_core.rendering.compositor import Layer, over


def picture(head: Layer, torso: Layer, plate: Float[Tensor, "H W 3"], threads: int = 1) -> UInt8[np.ndarray, "H W 3"]:
    """Head over torso over plate as sRGB bytes.

    float32 on the CPU runs in a kernel: five passes over images that outgrow the cache take longer than to rasterize them.
    """
    tensors = (*head, *torso, plate)
    if plate.device.type != "cpu" or why_not_available() is not None or {part.dtype for part in tensors} != {torch.float32}:
        return (over(head, over(torso, plate)).clamp(0, 1) * 255).round().byte().cpu().numpy()
    from gensync_core.rendering.frame_kernels import blend_rows  # which needs numba to be defined

    frame = np.empty(plate.shape, dtype=np.uint8)
    arrays = (part.detach().contiguous().numpy() for part in tensors)
    run_in_chunks(blend_rows, len(frame), *arrays, frame, threads=threads)
    return frame
