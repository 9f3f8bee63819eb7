"""What is exchanged with DVC's remote in the cloud: objects and run cache, pushed, fetched and counted."""

import configparser
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gensync_core.artefacts import atomic_path
from gensync_core.errors import ArtefactBroken
from gensync_core.paths import Project
from tasks.object_store import ObjectStore
from tasks.process import CommandFailed, Outcome, raise_for, run_command

REMOTE = "gensync-cloud"
# A stalled connection is given up and made anew; botocore and s3fs try again by themselves, and we after them.
_READ_TIMEOUT_S = 30
_CONNECT_TIMEOUT_S = 10
_ATTEMPTS = 4
_PAUSE_S = 2.0
_RETRIES = {"AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": "8"}
# In sync, or in the remote alone: what another machine needs is there.
_THERE = ("deleted",)


def use_remote(project: Project, url: str, *, alone: bool) -> None:
    """Enter the remote into the project's own, unversioned settings of DVC; what else stands there stays.

    Args:
        project: the project.
        url: `s3://bucket/prefix`.
        alone: a worker's copy: no git, this remote by default, whatever the project says. Otherwise it becomes the default
            only where there is none.
    """
    path = project.root / ".dvc" / "config.local"
    shared, config = _settings(project.root / ".dvc" / "config"), _settings(path)
    section = f"'remote \"{REMOTE}\"'"
    config[section] = {"url": url, "read_timeout": str(_READ_TIMEOUT_S), "connect_timeout": str(_CONNECT_TIMEOUT_S)}
    core = dict(config["core"]) if config.has_section("core") else {}
    if alone:
        core |= {"no_scm": "true", "analytics": "false", "check_update": "false", "remote": REMOTE}
        core["site_cache_dir"] = str(project.root / ".dvc" / "site")
        config["cache"] = {"dir": str(project.root / ".dvc" / "cache")}
    elif not shared.get("core", "remote", fallback=None):
        core.setdefault("remote", REMOTE)
    config["core"] = core
    with atomic_path(path) as temporary, temporary.open("w") as file:
        config.write(file)


def is_default(project: Project) -> bool:
    """Whether DVC takes this remote where none is named."""
    files = [project.root / ".dvc" / name for name in ("config.local", "config")]
    levels = [_settings(path).get("core", "remote", fallback=None) for path in files]
    return next((name for name in levels if name), None) == REMOTE


def _settings(path: Path) -> configparser.ConfigParser:
    config = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        config.read(path)
    except configparser.Error as error:
        raise ArtefactBroken(f"{path}: DVC's settings cannot be read ({type(error).__name__})") from error
    return config


def pull(project: Project, targets: Sequence[str]) -> None:
    """Fetch stages' outputs and tracked files into the working tree.

    Raises:
        CommandFailed: something could not be fetched after all attempts.
    """
    if targets:
        _try(project, "pull", "--quiet", "--remote", REMOTE, *targets)


def publish_inputs(project: Project, targets: Sequence[str]) -> None:
    """Push what workers read, and see that it has arrived: `dvc push` is content where an object is missing.

    Raises:
        ArtefactBroken: an object is neither in the cache nor in the remote.
        CommandFailed: something could not be pushed after all attempts.
    """
    if not targets:
        return
    _try(project, "push", "--quiet", "--remote", REMOTE, *targets)
    missing = missing_from_remote(project, targets)
    if missing:
        raise ArtefactBroken(
            f"{', '.join(missing)} is missing from DVC's cache and from the remote: add the footage again (dvc add), or run "
            "the stage that writes it (dvc repro --force --single-item)"
        )


def publish_stage(project: Project, address: str, entry: Mapping[str, Any], store: ObjectStore) -> None:
    """Push a stage's outputs and DVC's record of the run; whole in the cache before, whole in the remote afterwards.

    `dvc push` is content where an object is missing, and a record without its objects makes others run the stage again.

    Args:
        project: a worker's copy.
        address: the stage.
        entry: what `dvc.lock` says of it.
        store: the remote.

    Raises:
        ArtefactBroken: an object is missing.
        CommandFailed: something could not be pushed after all attempts.
        StoreFailed: the remote does not answer.
    """
    _refuse_missing(address, "DVC's cache", missing_objects(LocalCache(project.root / ".dvc" / "cache"), entry))
    _try(project, "push", "--quiet", "--run-cache", "--remote", REMOTE, address)
    _refuse_missing(address, "the remote", missing_objects(store, entry))


def _refuse_missing(address: str, where: str, missing: Sequence[str]) -> None:
    if missing:
        raise ArtefactBroken(f"{address} is not published: {', '.join(missing)} is missing from {where}; submit again")


class Objects(Protocol):
    """A place where DVC keeps objects."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """Its content."""
        ...


@dataclass(frozen=True, slots=True)
class LocalCache:
    """DVC's cache in a folder."""

    folder: Path

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return (self.folder / key).is_file()

    def get_bytes(self, key: str) -> bytes:
        """Its content."""
        return (self.folder / key).read_bytes()


def missing_objects(place: Objects, entry: Mapping[str, Any]) -> list[str]:
    """Outputs of a stage, by its entry in the lock, that are not, or not wholly, in a place.

    Raises:
        StoreFailed: the store cannot be asked.
    """
    return [out["path"] for out in entry.get("outs", []) if not _is_there(place, out["md5"])]


def _is_there(place: Objects, md5: str) -> bool:
    if not place.exists(object_key(md5)):
        return False
    if not md5.endswith(".dir"):
        return True
    try:
        return all(place.exists(object_key(file["md5"])) for file in json.loads(place.get_bytes(object_key(md5))))
    except (ValueError, KeyError, TypeError):
        return False


def object_key(md5: str) -> str:
    """Where DVC keeps an object, in a cache and in a remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def missing_from_remote(project: Project, targets: Sequence[str]) -> list[str]:
    """Files of the targets that another machine could not get.

    Raises:
        CommandFailed: the remote cannot be asked.
    """
    outcome = _try(project, "status", "--cloud", "--json", "--remote", REMOTE, *targets)
    said = next((line for line in reversed(outcome.tail) if line.startswith("{")), None)
    if said is None:
        raise CommandFailed("dvc status", f"did not say what is in the remote: {' '.join(outcome.tail[-1:])}")
    return sorted(name for name, state in json.loads(said).items() if state not in _THERE)


def _try(project: Project, *arguments: str) -> Outcome:
    """Run `dvc`, again after a pause where it failed: pushing and fetching may be repeated."""
    waiting = () if arguments[0] == "status" else ("--wait-for-lock",)
    command = [sys.executable, "-m", "dvc", *waiting, *arguments]
    outcome = run_command(command, cwd=project.root, env=_RETRIES)
    for attempt in range(1, _ATTEMPTS):
        if outcome.exit_code == 0 or outcome.interrupted:
            break
        time.sleep(_PAUSE_S * 2 ** (attempt - 1))
        outcome = run_command(command, cwd=project.root, env=_RETRIES)
    raise_for(outcome, f"dvc {arguments[0]}")
    return outcome
