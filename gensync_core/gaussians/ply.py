"""Gaussian clouds as PLY in the layout of 3DGS, which splat viewers open.

Vertex properties, all float32, binary little endian: x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3.
opacity is a logit, scales are logarithms, rot is wxyz, f_rest is channel after channel. The file keeps the cloud's raw
numbers, so a round trip is exact.
"""

from pathlib import Path

import numpy as np
import torch

from gensync_core.artefacts import atomic_path
from gensync_core.errors import ArtefactBroken
from gensync_core.gaussians.cloud import GaussianCloud

_MAGIC = b"ply\nformat binary_little_endian 1.0\n"
_END = b"end_header\n"
_MAX_HEADER_BYTES = 1 << 16


def _properties(num_rest: int) -> list[str]:
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(num_rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write_ply(path: Path, cloud: GaussianCloud) -> None:
    """Write a cloud; the target is replaced whole or not at all. Normals are 0, as 3DGS writes them."""
    arrays = cloud.to_arrays()
    count, num_rest = len(cloud), 3 * (cloud.sh.shape[1] - 1)
    rows = np.concatenate(
        [
            arrays["means"],
            np.zeros((count, 3), np.float32),
            arrays["sh"][:, 0],
            arrays["sh"][:, 1:].transpose(0, 2, 1).reshape(count, num_rest),
            arrays["logit_opacities"][:, None],
            arrays["log_scales"],
            arrays["quats"],
        ],
        axis=1,
    )
    lines = [f"element vertex {count}", *(f"property float {name}" for name in _properties(num_rest))]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_MAGIC + "".join(f"{line}\n" for line in lines).encode("ascii") + _END)
        file.write(rows.astype("<f4").tobytes())


def read_ply(path: Path) -> GaussianCloud:
    """Read a cloud that `write_ply` or 3DGS wrote.

    Raises:
        ArtefactBroken: missing, cut short, or not in this layout.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactBroken(f"{path}: cannot be read ({error})") from error
    end = content.find(_END, 0, _MAX_HEADER_BYTES)
    if not content.startswith(_MAGIC) or end < 0:
        raise ArtefactBroken(f"{path}: not a binary little-endian PLY file")
    count, names = _parse_header(path, content[len(_MAGIC) : end])
    body = content[end + len(_END) :]
    if len(body) != 4 * count * len(names):
        raise ArtefactBroken(f"{path}: {len(body)} bytes of Gaussians, the header says {4 * count * len(names)}")
    rows = np.frombuffer(body, "<f4").reshape(count, len(names))
    columns = {name: rows[:, i] for i, name in enumerate(names)}

    def stack(*names: str) -> np.ndarray:
        return np.stack([columns[name] for name in names], axis=1)

    num_rest = sum(name.startswith("f_rest_") for name in names)
    try:
        dc = stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
        rest = np.zeros((count, 0, 3), np.float32)
        if num_rest:
            rest = stack(*(f"f_rest_{i}" for i in range(num_rest))).reshape(count, 3, num_rest // 3).transpose(0, 2, 1)
        return GaussianCloud(
            means=torch.from_numpy(stack("x", "y", "z")),
            quats=torch.from_numpy(stack("rot_0", "rot_1", "rot_2", "rot_3")),
            log_scales=torch.from_numpy(stack("scale_0", "scale_1", "scale_2")),
            logit_opacities=torch.from_numpy(columns["opacity"].copy()),
            sh=torch.from_numpy(np.concatenate([dc, rest], axis=1)),
        )
    except (KeyError, ValueError) as error:
        raise ArtefactBroken(f"{path}: not in the layout of 3DGS ({error})") from error


def _parse_header(path: Path, header: bytes) -> tuple[int, list[str]]:
    """Number of vertices and names of their properties, all of which must be float32."""
    count, names = None, []
    for line in header.decode("ascii", "replace").splitlines():
        match line.split():
            case ["element", "vertex", number] if number.isdigit() and count is None:
                count = int(number)
            case ["property", "float" | "float32", name] if count is not None:
                names.append(name)
            case ["comment", *_] | []:
                pass
            case _:
                raise ArtefactBroken(f"{path}: header line {line!r} is not of the layout of 3DGS")
    if count is None:
        raise ArtefactBroken(f"{path}: no vertices in the header")
    return count, names
