"""LPIPS: values of the published code, properties, and weights that are read without running anything."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gensync_core.errors import ArtefactBroken
from gensync_core.losses.lpips import ALEXNET, MIN_SIDE_PX, Lpips, LpipsLayer
from gensync_core.losses.lpips_weights import read_lpips


def arrays(seed: int = 0) -> dict[str, Any]:
    """Weights by their published names, kernels as height, width, inputs, outputs."""
    rng, made = np.random.default_rng(seed), {}
    for index, shape in enumerate(ALEXNET):
        kernel = rng.standard_normal((shape.kernel, shape.kernel, shape.inputs, shape.outputs), dtype=np.float32)
        made[f"AlexNet_0/Conv_{index}/kernel"] = kernel * np.float32(shape.kernel**-1 * shape.inputs**-0.5)
        made[f"AlexNet_0/Conv_{index}/bias"] = rng.standard_normal(shape.outputs, dtype=np.float32) * np.float32(0.1)
        made[f"NetLinLayer_{index}/Conv_0/kernel"] = rng.random((1, 1, shape.outputs, 1), dtype=np.float32)
    return made


def pickled(tree: dict[str, Any]) -> bytes:
    """As an older numpy wrote it."""
    return pickle.dumps(tree, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def tree(flat: dict[str, Any]) -> dict[str, Any]:
    made: dict = {}
    for path, array in flat.items():
        *folders, name = path.split("/")
        place = made
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = array
    return made


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> Lpips:
    path = tmp_path_factory.mktemp("weights") / "lpips.npz"
    np.savez(path, allow_pickle=False, **{f"alex/{name}": array for name, array in arrays().items()})
    return read_lpips(path)


def ramps_and_rings(side: int) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    ramps = torch.stack([x / side, y / side, (x + y) / (2 * side)], -1).float()
    rings = 0.5 + 0.5 * torch.sin(((x - side / 2) ** 2 + (y - side / 2) ** 2).float().sqrt() / 2)
    return ramps[None], torch.stack([rings, rings.T * 0.7, 1 - rings], -1)[None]


@pytest.mark.parametrize(("side", "expected"), [(31, 0.2966711), (64, 0.6219246), (100, 0.7273871)])
def test_values_are_those_of_the_published_code(side: int, expected: float, shared_data: Path) -> None:
    """`expected` was computed with PyPI's lpips 0.1.4 (`net="alex"`, version 0.1) on the same two pictures."""
    published = read_lpips(shared_data / "models" / "lpips_alex.npz")
    assert published(*ramps_and_rings(side)).item() == pytest.approx(expected, abs=2e-6)


def test_equal_pictures_have_no_distance_and_order_does_not_matter(lpips: Lpips) -> None:
    one, other = ramps_and_rings(48)
    assert lpips(one, one).item() == 0
    assert lpips(one, other).item() > 0.01
    torch.testing.assert_close(lpips(one, other), lpips(other, one))
    both = lpips(torch.cat([one, other]), torch.cat([other, other]))
    torch.testing.assert_close(both, torch.tensor([lpips(one, other).item(), 0.0]))


def test_a_step_against_the_gradient_makes_pictures_more_alike(lpips: Lpips) -> None:
    image, target = ramps_and_rings(40)
    image = image.clone().requires_grad_()
    before = lpips(image, target)
    (gradient,) = torch.autograd.grad(before.sum(), image)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    step = 0.01 * gradient / torch.linalg.vector_norm(gradient)
    assert lpips(image - step, target).item() < before.item()


def test_places_where_no_feature_fires_have_a_gradient_of_zero_and_not_nan() -> None:
    layers = [
        LpipsLayer(
            torch.zeros(shape.outputs, shape.inputs, shape.kernel, shape.kernel),
            -torch.ones(shape.outputs),
            torch.ones(shape.outputs),
        )
        for shape in ALEXNET
    ]
    image, target = ramps_and_rings(32)
    image = image.clone().requires_grad_()
    Lpips(layers)(image, target).sum().backward()
    assert image.grad is not None
    assert (image.grad == 0).all()


def test_pictures_that_are_too_small_are_refused(lpips: Lpips) -> None:
    assert torch.isfinite(lpips(*ramps_and_rings(MIN_SIDE_PX))).all()
    with pytest.raises(ValueError, match="31 px"):
        lpips(*ramps_and_rings(MIN_SIDE_PX - 1))


def test_a_pickle_of_arrays_gives_the_same_network(lpips: Lpips, tmp_path: Path) -> None:
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickled(tree(arrays())))
    for one, other in zip(read_lpips(path).layers, lpips.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_would_run_something_is_refused_before_it_does(tmp_path: Path) -> None:
    path, marker = tmp_path / "alexnet.ckpt", tmp_path / "ran"
    path.write_bytes(pickled({**tree(arrays()), "bomb": _Bomb(marker)}))
    with pytest.raises(ArtefactBroken, match=r"it names posix\.mkdir"):
        read_lpips(path)
    assert not marker.exists()


@pytest.mark.parametrize("change", ["missing", "shape", "objects", "junk", "cut"])
def test_other_files_are_refused_with_their_name(change: str, tmp_path: Path) -> None:
    path, content = tmp_path / "lpips_alex.npz", arrays()
    if change == "missing":
        del content["AlexNet_0/Conv_3/bias"]
    elif change == "shape":
        content["AlexNet_0/Conv_1/kernel"] = content["AlexNet_0/Conv_1/kernel"][:3]
    elif change == "objects":
        content["AlexNet_0/Conv_0/bias"] = np.array([{}] * 64, dtype=object)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **content)
    path.write_bytes({"junk": b"no weights", "cut": buffer.getvalue()[:1000]}.get(change, buffer.getvalue()))
    with pytest.raises(ArtefactBroken, match=r"lpips_alex\.npz: holds no LPIPS weights"):
        read_lpips(path)
