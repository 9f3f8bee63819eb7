"""The code bundle: same content, same name; nothing that git ignores, nothing secret."""

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from memory_store import MemoryStore

from gensync_core.errors import ArtefactBroken, UsageError
from gensync_core.paths import Project
from tasks.code_bundle import bundle_key, fetch_bundle, make_bundle, put_bundle

Enlist = Callable[..., None]


def names_in(archive: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return set(tar.getnames())


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_times_owners_and_order_do_not_count(toy: Project, tmp_path: Path) -> None:
    digest, archive = make_bundle(toy)
    again = tmp_path / "again"
    for path in sorted(toy.root.rglob("*"), reverse=True):
        if path.is_file():
            copy = again / path.relative_to(toy.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            os.utime(copy, (0, 12345))
            copy.chmod(0o600)
    assert make_bundle(Project(again)) == (digest, archive)
    (again / "params.yaml").write_text("gain: 2\nweight: 1\n")
    assert make_bundle(Project(again))[0] != digest


def test_without_git_a_project_is_its_code_and_settings(toy: Project, enlist: Enlist) -> None:
    enlist("anna")
    (toy.root / "dvc.lock").write_text("schema: '2.0'\n")
    for name in (
        ".env",
        ".dvc/config.local",
        ".dvc/cache/files/x",
        ".dvc/tmp/lock",
        "models/main/weights",
        ".gensync/cloud/x.json",
    ):
        (toy.root / name).parent.mkdir(parents=True, exist_ok=True)
        (toy.root / name).write_text("secret")
    found = names_in(make_bundle(toy)[1])
    assert found >= {
        "dvc.yaml",
        "dvc.lock",
        "params.yaml",
        "speakers.yaml",
        "toy.py",
        ".dvc/config",
        "gensync_core/__main__.py",
    }
    assert not [name for name in found if "secret" in (toy.root / name).read_text()]
    assert "data/raw/anna.mp4" not in found
    assert "data/raw/anna.mp4" in names_in(make_bundle(toy, ["data/raw/anna.mp4"])[1]), "plain inputs of stages travel along"


def test_with_git_it_is_what_git_does_not_ignore_and_the_lock(toy: Project) -> None:
    git(toy.root, "init", "-q")
    (toy.root / ".gitignore").write_text("dvc.lock\n/data/\n*.secret\n")
    for name in ("dvc.lock", "data/clip", "my.secret", "notes.txt"):
        (toy.root / name).parent.mkdir(exist_ok=True)
        (toy.root / name).write_text(name)
    git(toy.root, "add", "toy.py", "dvc.yaml")
    found = names_in(make_bundle(toy)[1])
    assert {"toy.py", "dvc.yaml", "notes.txt", "dvc.lock"} <= found
    assert not found & {"data/clip", "my.secret"}
    assert not [name for name in found if name.startswith(".git/")]
    (toy.root / "toy.py").unlink()
    assert "toy.py" not in names_in(make_bundle(toy)[1]), "tracked, but deleted"


def test_a_project_in_an_ignored_folder_of_a_repository_is_not_empty(toy: Project) -> None:
    git(toy.root.parent, "init", "-q")
    (toy.root.parent / ".gitignore").write_text("/toy/\n")
    assert "toy.py" in names_in(make_bundle(toy)[1])


def test_credentials_in_the_shared_settings_are_refused_and_not_repeated(toy: Project) -> None:
    config = toy.root / ".dvc" / "config"
    config.write_text(config.read_text() + "['remote \"store\"']\n    url = s3://b/x\n    secret_access_key = canary-123\n")
    with pytest.raises(UsageError, match="holds credentials") as caught:
        make_bundle(toy)
    assert "canary-123" not in str(caught.value)


def test_a_bundle_is_stored_once_and_checked_when_unpacked(toy: Project, tmp_path: Path) -> None:
    store = MemoryStore()
    digest, archive = make_bundle(toy)
    put_bundle(store, digest, archive)
    put_bundle(store, digest, archive)
    assert store.puts == 1
    fetch_bundle(store, digest, tmp_path / "worker")
    assert (tmp_path / "worker" / "toy.py").read_text() == (toy.root / "toy.py").read_text()
    for damaged in (archive[:-20], gzip.compress(gzip.decompress(archive) + b"x")):
        store.objects[bundle_key(digest)] = damaged
        with pytest.raises(ArtefactBroken, match="submit again"):
            fetch_bundle(store, digest, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "kind"), [("../outside", tarfile.REGTYPE), ("/outside", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)]
)
def test_nothing_is_unpacked_from_a_bundle_that_leads_out_of_its_folder(tmp_path: Path, name: str, kind: bytes) -> None:
    content, member = io.BytesIO(), tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(member)
    store, digest = MemoryStore(), hashlib.sha256(content.getvalue()).hexdigest()
    store.objects[bundle_key(digest)] = gzip.compress(content.getvalue())
    with pytest.raises(ArtefactBroken, match="which no bundle does"):
        fetch_bundle(store, digest, tmp_path / "worker")
    assert not list(tmp_path.rglob("*"))
