"""Digests that tell whether two reports were made from the same things."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SOURCES = (".py", ".html", ".npz")


def code_digest(package: Path | None = None) -> str:
    """sha256 over names and contents of a package's sources, in the order of their names; `gensync_core` by default."""
    root = package or Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(file for file in root.rglob("*") if file.suffix in _SOURCES and "__pycache__" not in file.parts):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}:{len(content)};".encode())
        digest.update(content)
    return digest.hexdigest()


def parameter_digest(parameters: Mapping[str, Any]) -> str:
    """sha256 of parameters, independent of the order of their keys."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode()).hexdigest()
