"""The published weights of LPIPS with AlexNet: where they are, and what of them is read."""

import logging
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from gensync_core.assets import LPIPS_ALEX, resolve
from gensync_core.errors import ArtefactBroken, AssetMissing
from gensync_core.losses.lpips import ALEXNET, Lpips, LpipsLayer
from gensync_core.losses.weights import LossParams

_logger = logging.getLogger(__name__)
_PICKLED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
"""All that a pickle of arrays has to name."""


def load_lpips(device: str | torch.device = "cpu") -> Lpips:
    """The network with its weights, which are fetched first where they have to be.

    Raises:
        AssetMissing: the weights are not to be had.
        ArtefactBroken: the file cannot be read.
    """
    return read_lpips(resolve(LPIPS_ALEX), device)


def without_missing_weights(losses: LossParams) -> LossParams:
    """The same weights of the terms, less the perceptual one where the network for it is not to be had; says so in the log."""
    if losses.perceptual == 0:
        return losses
    try:
        resolve(LPIPS_ALEX)
    except AssetMissing as error:
        _logger.warning("training without the perceptual loss (loss.perceptual is %g): %s", losses.perceptual, error)
        return replace(losses, perceptual=0.0)
    return losses


def read_lpips(path: Path, device: str | torch.device = "cpu") -> Lpips:
    """Read the arrays `AlexNet_0/Conv_i/kernel`, `.../bias` and `NetLinLayer_i/Conv_0/kernel` of an npz or a pickle.

    A pickle may hold nothing but arrays and dictionaries.

    Raises:
        ArtefactBroken: it cannot be read, holds anything else, or is not this network.
    """
    try:
        arrays = _read_npz(path) if zipfile.is_zipfile(path) else _read_pickle(path)
        layers = [_layer(arrays, index, device) for index in range(len(ALEXNET))]
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise ArtefactBroken(f"{path}: holds no LPIPS weights ({error}); delete it, so that it is fetched again") from error
    return Lpips(layers)


def _layer(arrays: dict[str, np.ndarray], index: int, device: str | torch.device) -> LpipsLayer:
    shape = ALEXNET[index]
    kernel, bias = (arrays[f"AlexNet_0/Conv_{index}/{name}"] for name in ("kernel", "bias"))
    head = arrays[f"NetLinLayer_{index}/Conv_0/kernel"]
    expected = (shape.kernel, shape.kernel, shape.inputs, shape.outputs), (shape.outputs,), (1, 1, shape.outputs, 1)
    if (kernel.shape, bias.shape, head.shape) != expected:
        raise ValueError(f"layer {index} has the shapes {kernel.shape}, {bias.shape}, {head.shape}, expected {expected}")
    return LpipsLayer(
        *(_tensor(part).to(device) for part in (kernel.transpose(3, 2, 0, 1), bias, head.reshape(-1)))  # from h w i o
    )


def _tensor(array: Float32[np.ndarray, "..."]) -> torch.Tensor:
    return torch.from_numpy(np.array(array, order="C"))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name.removeprefix("alex/"): file[name] for name in file.files}


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        return _flat(_ArrayUnpickler(file).load())


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _PICKLED:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")
        return super().find_class(module_name, global_name)


def _flat(tree: dict[str, Any], path: str = "") -> dict[str, np.ndarray]:
    leaves: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{path}{name}/") if isinstance(value, dict) else {path + name: np.asarray(value)}
    return leaves
