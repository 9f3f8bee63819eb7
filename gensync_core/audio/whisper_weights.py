"""OpenAI's Whisper checkpoints in the names of `transformers`."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from gensync_core.errors import ArtefactBroken

# OpenAI's name inside `encoder.` -> transformers' name inside WhisperEncoder.
_NAMES = (
    (r"^conv([12])\.", r"conv\1."),
    (r"^positional_embedding$", "embed_positions.weight"),
    (r"^ln_post\.", "layer_norm."),
    (r"^blocks\.(\d+)\.attn\.query\.", r"layers.\1.self_attn.q_proj."),
    (r"^blocks\.(\d+)\.attn\.key\.", r"layers.\1.self_attn.k_proj."),
    (r"^blocks\.(\d+)\.attn\.value\.", r"layers.\1.self_attn.v_proj."),
    (r"^blocks\.(\d+)\.attn\.out\.", r"layers.\1.self_attn.out_proj."),
    (r"^blocks\.(\d+)\.attn_ln\.", r"layers.\1.self_attn_layer_norm."),
    (r"^blocks\.(\d+)\.mlp\.0\.", r"layers.\1.fc1."),
    (r"^blocks\.(\d+)\.mlp\.2\.", r"layers.\1.fc2."),
    (r"^blocks\.(\d+)\.mlp_ln\.", r"layers.\1.final_layer_norm."),
)


def load_encoder_weights(path: Path) -> dict[str, Tensor]:
    """The encoder's float32 weights under transformers' names, from OpenAI's `.pt` or from safetensors with its names.

    A `.pt` is a pickle: only tensors and plain containers are let through.

    Raises:
        ArtefactBroken: the file cannot be read or holds no Whisper encoder.
    """
    try:
        if path.suffix == ".safetensors":
            content: Mapping[str, Tensor] = safetensors.torch.load_file(path)
        else:
            if not zipfile.is_zipfile(path):  # the unpickler fails on junk with errors of every kind
                raise ValueError("not a torch file")
            content = torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"]
        return rename_openai_encoder(content)
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        raise ArtefactBroken(f"{path}: holds no Whisper encoder ({error}); delete it, so that it is fetched again") from error


def rename_openai_encoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder tensors under transformers' names; whatever stands before `encoder.` and the decoder are left out.

    Raises:
        ValueError: there is an encoder tensor of unknown name, or none at all.
    """
    renamed = {}
    for name, tensor in weights.items():
        _, found, inner = f".{name}".partition(".encoder.")
        if found:
            renamed[_rename(inner)] = tensor.float()
    if not renamed:
        raise ValueError("no tensor below 'encoder.'")
    return renamed


def _rename(name: str) -> str:
    for pattern, replacement in _NAMES:
        new, hits = re.subn(pattern, replacement, name)
        if hits:
            return new
    raise ValueError(f"unknown encoder tensor {name!r}")
