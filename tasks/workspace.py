"""Makes a project folder of its own: the pipeline, its parameters and the code that its stages run, without any data."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gensync_core.artefacts import atomic_path
from gensync_core.errors import UsageError
from gensync_core.paths import Project
from gensync_core.speakers import Registry

_CODE = "gensync_core"
_PIPELINE = ("dvc.yaml", ".dvcignore")
_DVC_CONFIG = """\
[core]
    no_scm = true
    analytics = false
    check_update = false
"""


def source_root() -> Path:
    """The folder that this installation's pipeline lies in.

    Raises:
        UsageError: the package was installed without it.
    """
    root = Path(__file__).resolve().parents[1]
    if not is_project(root):
        raise UsageError(f"no dvc.yaml and params.yaml beside {root / _CODE}: install GenSync from its repository")
    return root


def is_project(folder: Path) -> bool:
    """Whether the folder is a project's root."""
    return (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file()


def find_project(start: Path) -> Project:
    """The project that `start` lies in.

    Raises:
        UsageError: there is none here or above.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if is_project(folder):
            return Project(folder)
    raise UsageError(f"{start} lies in no GenSync project (a folder with dvc.yaml and params.yaml); go there or use --project")


def create_workspace(folder: Path, source: Path, overrides: Mapping[str, Mapping[str, Any] | int] | None = None) -> Project:
    """Make `folder` a project like `source`, with nobody in it; an existing one is brought up to date and keeps its data.

    The code is copied because stages depend on it: a later change in `source` does not disturb the project. Compiled
    kernels travel along.

    Args:
        folder: made where absent.
        source: folder with `dvc.yaml`, `params.yaml` and the code.
        overrides: section of `params.yaml` -> key -> value, or `seed` -> value.

    Raises:
        UsageError: an override names a section or key that is not in `params.yaml`.
    """
    params = override_params(yaml.safe_load((source / "params.yaml").read_text()), overrides or {})
    project = Project(folder.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    for name in _PIPELINE:
        shutil.copyfile(source / name, folder / name)
    # copytree keeps times of modification: numba's and Python's compiled files beside the sources stay valid.
    shutil.rmtree(folder / _CODE, ignore_errors=True)
    shutil.copytree(source / _CODE, folder / _CODE)
    with atomic_path(project.params_file) as temporary:
        temporary.write_text(yaml.safe_dump(params, sort_keys=False))
    if not project.speakers_file.exists():
        Registry({}).save(project.speakers_file)
    if not project.synth_file.exists():
        project.synth_file.write_text("jobs: {}\n")
    if not project.finetune_file.exists():
        project.finetune_file.write_text("finetuned: []\n")
    dvc_config = folder / ".dvc" / "config"
    if not dvc_config.exists():
        dvc_config.parent.mkdir(exist_ok=True)
        dvc_config.write_text(_DVC_CONFIG)
    return project


def override_params(params: dict[str, Any], overrides: Mapping[str, Mapping[str, Any] | int]) -> dict[str, Any]:
    """`params.yaml`'s content with some values replaced.

    Raises:
        UsageError: an override names a section or key that is not there.
    """
    changed = {name: dict(section) if isinstance(section, dict) else section for name, section in params.items()}
    for name, section in overrides.items():
        if name not in changed:
            raise UsageError(f"params.yaml has no section {name!r}")
        if not isinstance(section, Mapping):
            changed[name] = section
            continue
        unknown = set(section) - set(changed[name])
        if unknown:
            raise UsageError(f"params.yaml: section {name!r} has no key {', '.join(sorted(unknown))}")
        changed[name] |= section
    return changed
