"""Gaussian clouds in the file formats that splat viewers open."""

from pathlib import Path

import torch

from gensync_core.artefacts import atomic_path
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.ply import write_ply

FORMATS = ("ply", "splat", "compressed")
FAINTEST_COMPRESSED = 1 / 255
"""Opacity up to which the compressed format leaves a Gaussian out: it could store 0 only."""

_GSPLAT_NAMES = {"splat": "splat", "compressed": "ply_compressed"}


def write_splats(path: Path, cloud: GaussianCloud, form: str) -> int:
    """Write a cloud; the target is replaced whole or not at all.

    Args:
        path: target.
        cloud: of any degree of spherical harmonics.
        form: `ply`, the layout of 3DGS: exact, `ply.read_ply` reads it back. `splat`, of antimatter15's viewer: 32 bytes a
            Gaussian, colour and rotation in 8 bits, no harmonics beyond the constant one. `compressed`, SuperSplat's
            `.compressed.ply`: 16 bytes a Gaussian and one for each further coefficient, in chunks of 256. The last two are
            gsplat's; they reorder.

    Returns:
        Number of Gaussians written: `compressed` leaves out the faintest.

    Raises:
        ValueError: no such format, numbers that are not finite, or nothing to write in a format that needs a Gaussian.
    """
    if form not in FORMATS:
        raise ValueError(f"format is {form!r}, expected one of {', '.join(FORMATS)}")
    if not all(torch.isfinite(tensor).all() for _, tensor in cloud.named()):
        raise ValueError("the cloud holds NaN or infinite values")
    if form == "ply":
        write_ply(path, cloud)
        return len(cloud)
    count = int((cloud.opacities > FAINTEST_COMPRESSED).sum()) if form == "compressed" else len(cloud)
    if not count:
        raise ValueError(f"no Gaussian to write in the format {form}")
    from gensync_core.gaussians.backends.gsplat_export import encode

    content = encode(**dict(cloud.named()), form=_GSPLAT_NAMES[form])
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return count
