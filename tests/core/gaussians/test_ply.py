from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensync_core.errors import ArtefactBroken
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.ply import read_ply, write_ply


def random_cloud(count: int, coefficients: int, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, 3), (count, 4), (count, 3), (count,), (count, coefficients, 3))
    return GaussianCloud(*(torch.randn(shape, generator=generator) for shape in shapes))


@settings(max_examples=15, deadline=None)
@given(count=st.integers(0, 40), coefficients=st.sampled_from([1, 4, 9, 16]), seed=st.integers(0, 1000))
def test_round_trip_is_exact(tmp_path_factory, count, coefficients, seed):
    cloud = random_cloud(count, coefficients, seed)
    path = tmp_path_factory.mktemp("ply") / "cloud.ply"
    write_ply(path, cloud)
    for (name, tensor), (_, other) in zip(cloud.named(), read_ply(path).named(), strict=True):
        assert torch.equal(tensor, other), name


def test_layout_is_that_of_3dgs(tmp_path: Path):
    cloud = random_cloud(2, 4)
    write_ply(tmp_path / "cloud.ply", cloud)
    header, body = (tmp_path / "cloud.ply").read_bytes().split(b"end_header\n", 1)
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property float ")]
    expected = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2".split() + [f"f_rest_{i}" for i in range(9)]
    assert names == expected + "opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()
    row = np.frombuffer(body, "<f4").reshape(2, -1)[0]
    # Channel after channel: all of red's three further coefficients first.
    np.testing.assert_array_equal(row[9:12], cloud.sh[0, 1:, 0])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not a ply",
        lambda content: content[:-3],
        lambda content: content + b"1234",
        lambda content: content.replace(b"property float opacity", b"property float opaqueness"),
        lambda content: content.replace(b"property float opacity", b"property double opacity"),
    ],
)
def test_what_is_not_such_a_file_is_refused(tmp_path: Path, damage):
    path = tmp_path / "cloud.ply"
    write_ply(path, random_cloud(3, 1))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtefactBroken, match=r"cloud\.ply"):
        read_ply(path)


def test_missing_file(tmp_path: Path):
    with pytest.raises(ArtefactBroken, match="cannot be read"):
        read_ply(tmp_path / "none.ply")
