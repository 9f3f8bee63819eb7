"""Writing and reading artefacts: whole or not at all, with a digest that is checked when one is read."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from gensync_core.errors import ArtefactBroken

SCHEMA_VERSION = 1
_META = "gensync"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; on success it is synced and renamed to `target`, on failure removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with `schema_version` first; floats that are not finite become null."""
    with atomic_path(path) as temporary:
        text = json.dumps(_finite({"schema_version": SCHEMA_VERSION, **content}), indent=2, allow_nan=False)
        temporary.write_text(text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        ArtefactBroken: missing, not JSON, or of another schema version.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtefactBroken(f"{path}: cannot be read ({error}); run the stage that writes it again") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise ArtefactBroken(f"{path}: schema version is not {SCHEMA_VERSION}; run the stage that writes it again")
    return content


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any] | None = None) -> None:
    """Write arrays and a JSON-able `meta` as safetensors; the content's sha256 goes into the header.

    The same content gives the same bytes.
    """
    arrays = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    header = json.dumps(
        {"schema_version": SCHEMA_VERSION, "sha256": _digest(arrays), **_finite(meta or {})}, sort_keys=True, allow_nan=False
    )
    with atomic_path(path) as temporary:
        safetensors.numpy.save_file(arrays, temporary, metadata={_META: header})


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_tensors` wrote: the arrays and `meta` (with its `sha256`).

    Raises:
        ArtefactBroken: missing, damaged, or of another schema version.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            meta = json.loads((file.metadata() or {}).get(_META, "{}"))
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ArtefactBroken(f"{path}: cannot be read ({error}); run the stage that writes it again") from error
    if meta.get("schema_version") != SCHEMA_VERSION or meta.get("sha256") != _digest(arrays):
        raise ArtefactBroken(f"{path}: content does not match its checksum; run the stage that writes it again")
    return arrays, meta


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # no copy
    return digest.hexdigest()
