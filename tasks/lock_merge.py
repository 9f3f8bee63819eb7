"""Takes over what workers made: parts of `dvc.lock`, each stage only if it ran on the inputs that this project has.

No data is needed: what a stage read is compared with what the stages above wrote, as the lock says, and with the code,
settings and footage that lie here.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from gensync_core.errors import ArtefactBroken
from gensync_core.paths import Project
from tasks import dvc_project
from tasks.dvc_project import StageHashes, StageInputs
from tasks.dvc_remote import missing_objects
from tasks.object_store import ObjectStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """Stages that were taken over, and why others were not: address -> reason."""

    merged: tuple[str, ...]
    refused: dict[str, str]


@dataclass(slots=True)
class _Known:
    """What is known of the files in the project: outputs by the lock, the rest by its content."""

    outs: dict[str, str] = field(default_factory=dict)

    def enter(self, entry: Mapping[str, Any]) -> None:
        self.outs.update({out["path"]: out["md5"] for out in entry.get("outs", [])})

    def expected(self, path: str, here: str | None) -> str | None:
        """DVC's hash of what a stage would read at `path` if everything known were there."""
        if path in self.outs:
            return self.outs[path]
        below = {name: md5 for name, md5 in self.outs.items() if PurePosixPath(name).is_relative_to(path)}
        return _folder_hash(path, below) if below else here


def merge_parts(project: Project, parts: Iterable[Mapping[str, Any]], store: ObjectStore | None = None) -> Merge:
    """Enter the stages of several lock parts into `dvc.lock`.

    Args:
        project: the project that the parts were made for.
        parts: address -> entry as `dvc.lock` has it.
        store: DVC's remote; where given, stages whose outputs are not all there are refused.

    Raises:
        ArtefactBroken: the project or its lock cannot be read.
        StoreFailed: the store cannot be asked.
    """
    offered = {address: entry for part in parts for address, entry in part.items()}
    inputs = dvc_project.stage_inputs(project)
    refused = {address: "there is no such stage any more" for address in offered if address not in inputs}
    known = _known(project, inputs, {})
    hashes = dvc_project.current_hashes(project, offered)
    accepted: dict[str, Any] = {}
    for address, wanted in inputs.items():
        if address not in offered:
            continue
        entry = offered[address]
        reason = _difference(entry, wanted, hashes[address], known) or _absence(entry, store)
        if reason:
            refused[address] = reason
        else:
            accepted[address] = entry
            known.enter(entry)
    dvc_project.enter_results(project, accepted)
    return Merge(merged=tuple(accepted), refused=refused)


def done_elsewhere(project: Project, addresses: Iterable[str]) -> set[str]:
    """Of stages that DVC would run: those whose entry in the lock still holds and whose outputs merely are not here."""
    chosen = set(addresses)
    lock = dvc_project.read_lock(project)
    inputs = dvc_project.stage_inputs(project)
    known = _known(project, inputs, lock)
    hashes = dvc_project.current_hashes(project, chosen & set(lock))
    done: set[str] = set()
    for address, wanted in inputs.items():
        if address not in hashes:
            continue
        here = hashes[address]
        entry = lock[address]
        outs = {out["path"]: out["md5"] for out in entry.get("outs", [])}
        unchanged = all(md5 is None or md5 == outs.get(path) for path, md5 in here.outs.items())
        if unchanged and not (set(wanted.stages) & chosen - done) and not _difference(entry, wanted, here, known):
            done.add(address)
    return done


def _known(project: Project, inputs: Mapping[str, StageInputs], lock: Mapping[str, Any]) -> _Known:
    """Outputs of stages that still exist, by the lock, and files that `.dvc` files stand for."""
    known = _Known()
    lock = lock or dvc_project.read_lock(project)
    for address in inputs:
        known.enter(lock.get(address, {}))
    for name in sorted({name for stage in inputs.values() for name in stage.tracked}):
        path = project.root / name
        try:
            outs = yaml.safe_load(path.read_text())["outs"]
            known.outs.update({(PurePosixPath(name).parent / out["path"]).as_posix(): out["md5"] for out in outs})
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ArtefactBroken(f"{path}: cannot be read ({error}); restore it from version control") from error
    return known


def _difference(entry: Mapping[str, Any], wanted: StageInputs, here: StageHashes, known: _Known) -> str | None:
    """Why a stage's entry does not belong to what is here now."""
    if str(entry.get("cmd")) != wanted.command:
        return "its command has changed meanwhile"
    read = {dep["path"]: dep.get("md5") for dep in entry.get("deps", [])}
    if set(read) != set(here.deps):
        return "the list of its inputs has changed meanwhile"
    changed = [path for path, md5 in read.items() if md5 != known.expected(path, here.deps[path])]
    if changed:
        return f"{', '.join(sorted(changed))} is not what it read"
    used = entry.get("params", {})
    changed = [name for name, values in here.params.items() if used.get(name, {}) != values]
    return f"parameters in {', '.join(changed)} have changed meanwhile" if changed else None


def _absence(entry: Mapping[str, Any], store: ObjectStore | None) -> str | None:
    missing = missing_objects(store, entry) if store is not None else []
    return f"{', '.join(missing)} is missing from the remote" if missing else None


def _folder_hash(path: str, files: Mapping[str, str]) -> str | None:
    """DVC's hash of a folder that holds these files; None if one of them is a folder, whose content is not known here.

    Source: `dvc_data.hashfile.tree.Tree`.
    """
    if any(md5.endswith(".dir") for md5 in files.values()):
        return None
    rows = sorted((PurePosixPath(name).relative_to(path).as_posix(), md5) for name, md5 in files.items())
    listing = json.dumps([{"md5": md5, "relpath": name} for name, md5 in rows], sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"
