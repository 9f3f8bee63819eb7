"""`params.yaml` -> typed dataclasses of their owners. An unknown or missing key is an error that names file and key."""

import hashlib
import json
import types
import typing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from gensync_core.audio.audio_params import AudioParams
from gensync_core.dataset.split_params import SplitParams
from gensync_core.errors import UsageError
from gensync_core.evaluation.evaluate_params import EvaluateParams
from gensync_core.face.parsing import ParseParams
from gensync_core.face.track_params import TrackParams
from gensync_core.footage.gate_params import GateParams
from gensync_core.gaussians.render_params import RenderParams
from gensync_core.losses.weights import LossParams
from gensync_core.media.video import IngestParams
from gensync_core.model.model_params import ModelParams
from gensync_core.rendering.synth_params import SynthParams
from gensync_core.training.schedules import CoarseParams, FinetuneParams, FitParams


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """All sections of `params.yaml`; `seed` is for everything random."""

    seed: int
    gate: GateParams
    ingest: IngestParams
    parse: ParseParams
    track: TrackParams
    audio: AudioParams
    split: SplitParams
    render: RenderParams
    model: ModelParams
    loss: LossParams
    coarse: CoarseParams
    joint: FitParams
    adapt: FitParams
    finetune: FinetuneParams
    evaluate: EvaluateParams
    synth: SynthParams


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises:
        UsageError: the file is missing or not YAML, a key is unknown or missing, or a value is out of its range.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error})") from error
    return build(Params, content, str(path))


def build(cls: type, content: Any, where: str) -> Any:
    """Fill a dataclass from a mapping whose keys must be exactly its fields; nested dataclasses likewise."""
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected a mapping with the keys {[field.name for field in fields(cls)]}, got {content!r}")
    names = {field.name for field in fields(cls)}
    for problem, keys in (("unknown", set(content) - names), ("missing", names - set(content))):
        if keys:
            raise UsageError(f"{where}: {problem} key {', '.join(sorted(map(str, keys)))}; known: {', '.join(sorted(names))}")
    hints = get_type_hints(cls)
    values = {}
    for name, value in content.items():
        place = f"{where}: {name}" if cls is Params else f"{where}.{name}"
        hint = hints[name]
        if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
            values[name] = build(hint, value, place)
        elif not _fits(value, hint):
            raise UsageError(f"{place}: {value!r} is not a {getattr(hint, '__name__', hint)} (in YAML write 1.0e-3, not 1e-3)")
        else:
            values[name] = float(value) if hint is float else value
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if origin is typing.Literal:
        return value in get_args(hint)
    if origin is tuple:
        return isinstance(value, list)
    if hint is types.NoneType:
        return value is None
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def digest(*sections: Any) -> str:
    """Short digest of dataclasses, numbers and strings: the key of a training's resume state."""
    plain = [asdict(section) if hasattr(section, "__dataclass_fields__") else section for section in sections]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]
