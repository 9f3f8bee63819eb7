"""What is written in each format, read back by small decoders of their published layouts."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gsplat import export_splats

from flows.cli import SplatFormat
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.ply import read_ply, write_ply
from gensync_core.gaussians.spherical_harmonics import SH_C0
from gensync_core.gaussians.splat_file import FORMATS, write_splats

CHUNK = 256


def random_cloud(count: int, degree: int = 0, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, 3), (count, 4), (count, 3), (count,), (count, (degree + 1) ** 2, 3))
    return GaussianCloud(*(torch.randn(shape, generator=generator) for shape in shapes))


class Compressed(NamedTuple):
    header: list[str]
    means: np.ndarray
    quats: np.ndarray
    log_scales: np.ndarray
    colors: np.ndarray
    opacities: np.ndarray
    sh: np.ndarray
    steps: np.ndarray  # of position, scale and colour for each Gaussian [N, 9]


def bits(packed: np.ndarray, *widths: int) -> np.ndarray:
    """Unsigned fields of 32-bit numbers, the highest first, as shares of their range."""
    left, fields = 32, []
    for width in widths:
        left -= width
        fields.append(((packed >> np.uint32(left)) & np.uint32(2**width - 1)) / (2**width - 1))
    return np.stack(fields, axis=1)


def decode_compressed(content: bytes) -> Compressed:
    head, body = content.split(b"end_header\n", 1)
    header = head.decode().splitlines()
    sizes = {words[1]: int(words[2]) for words in map(str.split, header) if words[0] == "element"}
    num_rest = sum("f_rest_" in line for line in header)
    chunks, count = sizes["chunk"], sizes["vertex"]
    assert len(body) == chunks * 72 + count * (16 + num_rest)
    bounds = np.frombuffer(body, "<f4", chunks * 18).reshape(chunks, 18).repeat(CHUNK, axis=0)[:count]
    packed = np.frombuffer(body, "<u4", count * 4, chunks * 72).reshape(count, 4)
    low, high = bounds.reshape(count, 3, 2, 3)[:, :, 0], bounds.reshape(count, 3, 2, 3)[:, :, 1]
    color = bits(packed[:, 3], 8, 8, 8, 8)
    shares = np.stack([bits(packed[:, 0], 11, 10, 11), bits(packed[:, 2], 11, 10, 11), color[:, :3]], axis=1)
    means, log_scales, colors = (low + shares * (high - low)).transpose(1, 0, 2)
    largest = packed[:, 1] >> np.uint32(30)
    others = (bits(packed[:, 1], 2, 10, 10, 10)[:, 1:] - 0.5) * np.sqrt(2)
    quats = np.empty((count, 4))
    for row in range(count):
        rest = np.sqrt(max(0.0, 1 - (others[row] ** 2).sum()))
        quats[row] = np.insert(others[row], largest[row], rest)
    sh = (np.frombuffer(body, np.uint8, -1, chunks * 72 + count * 16).reshape(count, num_rest) + 0.5) / 32 - 4
    steps = ((high - low) / np.array([[2047, 1023, 2047], [2047, 1023, 2047], [255, 255, 255]])).reshape(count, 9)
    return Compressed(header, means, quats, log_scales, colors, color[:, 3], sh, steps)


def match(means: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of `means` the row of `others` next to it; each row once."""
    rows = np.linalg.norm(means[:, None] - others[None], axis=2).argmin(axis=1)
    assert len(set(rows.tolist())) == len(rows)
    return rows


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_ply_is_read_back_exactly(tmp_path: Path, degree: int):
    cloud = random_cloud(7, degree)
    assert write_splats(tmp_path / "head.ply", cloud, "ply") == 7
    for (name, tensor), (_, other) in zip(cloud.named(), read_ply(tmp_path / "head.ply").named(), strict=True):
        assert torch.equal(tensor, other), name


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_our_ply_and_that_of_gsplat_hold_the_same_vertices(tmp_path: Path, degree: int):
    cloud = random_cloud(7, degree)
    tensors = (cloud.means, cloud.log_scales, cloud.quats, cloud.logit_opacities, cloud.sh[:, :1], cloud.sh[:, 1:])
    (tmp_path / "theirs.ply").write_bytes(export_splats(*tensors, format="ply"))
    write_ply(tmp_path / "ours.ply", cloud)
    for (name, tensor), (_, other) in zip(
        read_ply(tmp_path / "ours.ply").named(), read_ply(tmp_path / "theirs.ply").named(), strict=True
    ):
        assert torch.equal(tensor, other), name


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 50])
def test_splat_has_32_bytes_a_gaussian(tmp_path: Path, degree: int, count: int):
    cloud = random_cloud(count, degree)
    assert write_splats(tmp_path / "head.splat", cloud, "splat") == count
    content = (tmp_path / "head.splat").read_bytes()
    assert len(content) == 32 * count
    row = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", np.uint8, 4), ("quats", np.uint8, 4)])
    found = np.frombuffer(content, row)
    rows = match(found["means"], cloud.means.numpy())
    np.testing.assert_array_equal(found["means"], cloud.means[rows])
    np.testing.assert_allclose(found["scales"], cloud.scales[rows], rtol=1e-6)
    np.testing.assert_allclose(found["rgba"][:, :3] / 255, cloud.colors[rows], atol=1 / 254)
    np.testing.assert_allclose(found["rgba"][:, 3] / 255, cloud.opacities[rows], atol=1 / 254)
    quats = torch.nn.functional.normalize(cloud.quats[rows], dim=1)
    np.testing.assert_allclose((found["quats"].astype(float) - 128) / 128, quats, atol=1 / 127)


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_compressed_holds_everything_within_its_quantisation(tmp_path: Path, degree: int, count: int):
    cloud = random_cloud(count, degree)
    assert write_splats(tmp_path / "head.compressed.ply", cloud, "compressed") == count
    found = decode_compressed((tmp_path / "head.compressed.ply").read_bytes())
    rows = match(found.means, cloud.means.numpy())
    colors = 0.5 + SH_C0 * cloud.sh[rows, 0].numpy()
    stored = np.concatenate([found.means, found.log_scales, found.colors], axis=1)
    true = np.concatenate([cloud.means[rows].numpy(), cloud.log_scales[rows].numpy(), colors], axis=1)
    assert (np.abs(stored - true) <= 0.51 * found.steps + 1e-6).all()
    np.testing.assert_allclose(found.opacities, cloud.opacities[rows], atol=0.51 / 255)
    quats = torch.nn.functional.normalize(cloud.quats[rows], dim=1).numpy()
    assert (np.abs((quats * found.quats).sum(axis=1)) > 1 - 1e-5).all()
    further = cloud.sh[rows, 1:].numpy().transpose(0, 2, 1).reshape(count, -1)
    np.testing.assert_allclose(found.sh, np.clip(further, -4, 4), atol=0.51 / 32)


def test_compressed_declares_further_coefficients_only_where_there_are_some(tmp_path: Path):
    for degree, declared in ((0, False), (1, True)):
        write_splats(tmp_path / "head.ply", random_cloud(3, degree), "compressed")
        header = decode_compressed((tmp_path / "head.ply").read_bytes()).header
        assert ("element sh 3" in header) is declared


def test_compressed_leaves_out_what_it_could_only_store_as_invisible(tmp_path: Path):
    cloud = random_cloud(4)
    cloud.logit_opacities[1] = -20.0
    assert write_splats(tmp_path / "head.ply", cloud, "compressed") == 3
    rows = match(decode_compressed((tmp_path / "head.ply").read_bytes()).means, cloud.means.numpy())
    assert sorted(rows.tolist()) == [0, 2, 3]


@pytest.mark.parametrize("form", ["splat", "compressed"])
def test_what_cannot_be_written_leaves_the_old_file_as_it_is(tmp_path: Path, form: str):
    path = tmp_path / "head"
    path.write_bytes(b"old")
    broken = random_cloud(3)
    broken.means[1, 0] = torch.nan
    for cloud, name, says in ((random_cloud(0), form, "no Gaussian"), (broken, form, "NaN"), (random_cloud(2), "obj", "obj")):
        with pytest.raises(ValueError, match=says):
            write_splats(path, cloud, name)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_line_offers_every_format():
    assert tuple(form.value for form in SplatFormat) == FORMATS
