"""gsplat's file formats for Gaussians. Plain torch: no CUDA needed. Importing gsplat takes over a second, hence late."""

import re

from torch import Tensor


def encode(means: Tensor, log_scales: Tensor, quats: Tensor, logit_opacities: Tensor, sh: Tensor, form: str) -> bytes:
    """Content of a file of N Gaussians, at least one.

    Args:
        means: [N, 3].
        log_scales: [N, 3].
        quats: [N, 4], wxyz.
        logit_opacities: [N].
        sh: [N, K, 3].
        form: ply, splat or ply_compressed, as `gsplat.export_splats` names them.
    """
    from gsplat import export_splats

    tensors = (tensor.detach().float().cpu() for tensor in (means, log_scales, quats, logit_opacities, sh[:, :1], sh[:, 1:]))
    content = export_splats(*tensors, format=form)  # pyright: ignore[reportArgumentType]
    if form == "ply_compressed" and sh.shape[1] == 1:
        # gsplat 1.5.3 declares an element without properties, which viewers take for a file of another layout.
        content = re.sub(rb"element sh \d+\n", b"", content, count=1)
    return content
