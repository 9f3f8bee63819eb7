"""`dvc.lock` and DVC's cache against what lies on disk, without DVC."""

import hashlib
import json
from pathlib import Path
from typing import Any

from gensync_core.paths import Project
from tasks.dvc_project import read_lock


def md5_of(path: Path, ignored: tuple[str, ...] = (".",)) -> str:
    """DVC's hash of a file, or of a folder less the files whose name begins with one of `ignored`."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith(ignored))
    listed = [{"md5": md5_of(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    listed.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def wrong_entries(project: Project) -> list[str]:
    """Everything that `dvc.lock` says of a file, folder or parameter and that is not so."""
    found = []
    for address, entry in read_lock(project).items():
        for item in [*entry.get("deps", []), *entry.get("outs", [])]:
            path = project.root / item["path"]
            now = md5_of(path) if path.exists() else "nothing there"
            if now != item["md5"]:
                found.append(f"{address}: {item['path']} is {now}, dvc.lock says {item['md5']}")
    return found


def damaged_objects(project: Project, *, at_work: bool = False) -> list[str]:
    """Objects of DVC's cache whose content does not match their name; temporary files aside.

    While DVC is `at_work`, or was killed at it, those are left out that it has not write-protected yet: it will not trust
    them before it has hashed them.
    """
    folder = project.root / ".dvc" / "cache" / "files" / "md5"
    found = []
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        name = path.parent.name + path.name
        if len(name.removesuffix(".dir")) != 32:
            continue
        try:
            trusted, content = not path.stat().st_mode & 0o200, path.read_bytes()
        except FileNotFoundError:
            continue
        if hashlib.md5(content).hexdigest() != name.removesuffix(".dir") and (trusted or not at_work):
            found.append(str(path))
    return found


def outs_missing(project: Project, entries: dict[str, Any]) -> list[str]:
    """Outs of these entries of `dvc.lock` that do not lie in DVC's cache."""
    folder = project.root / ".dvc" / "cache" / "files" / "md5"
    hashes = [(address, out["md5"]) for address, entry in entries.items() for out in entry.get("outs", [])]
    return [f"{address}: {md5}" for address, md5 in hashes if not (folder / md5[:2] / md5[2:]).is_file()]
