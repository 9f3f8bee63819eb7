"""A project's code and settings as one archive: the same content gives the same name, wherever and whenever it is made."""

import configparser
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from gensync_core.errors import ArtefactBroken, UsageError
from gensync_core.paths import Project
from tasks.object_store import ObjectStore

# What a project without git consists of; a workspace made by `gensync demo` is one.
_OWN_FILES = (
    "*.py",
    "*.yaml",
    "*.lock",
    "*.toml",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    "gensync_core/**/*",
    "data/raw/*.dvc",
    "data/**/*.dvc",
)
_ALWAYS = ("dvc.yaml", "dvc.lock", "params.yaml", "speakers.yaml", "synth.yaml", "finetune.yaml", ".dvc/config")
_NEVER = ("__pycache__", ".git", ".gensync", ".venv", "node_modules")
_NEVER_SUFFIXES = (".pyc", ".nbi", ".nbc")
_NEVER_FILES = (".env", ".dvc/config.local")
_SECRET_KEYS = (
    "access_key_id",
    "secret_access_key",
    "session_token",
    "password",
    "connection_string",
    "account_key",
    "sas_token",
)


def make_bundle(project: Project, extra: Iterable[str] = ()) -> tuple[str, bytes]:
    """Pack what git tracks and what it does not ignore; without git, the files that make up a project.

    Args:
        project: the folder to pack.
        extra: further files or folders to pack, relative to the root: plain inputs of stages that git ignores.

    Returns:
        Hex sha256 of the archive before compression, and the archive (.tar.gz). Times, owners and the order in which files
        were made do not count.

    Raises:
        UsageError: credentials are written in `.dvc/config`, from where they would travel.
    """
    _refuse_credentials(project.root / ".dvc" / "config")
    always = {name for name in _ALWAYS if (project.root / name).is_file()}
    names = sorted(always | set(_listed(project.root)) | set(_below(project.root, extra)))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            _add(tar, project.root / name, name)
    content = archive.getvalue()
    return hashlib.sha256(content).hexdigest(), gzip.compress(content, mtime=0)


def bundle_key(digest: str) -> str:
    """Where a bundle lies in the store."""
    return f"code/{digest}.tar.gz"


def put_bundle(store: ObjectStore, digest: str, archive: bytes) -> None:
    """Store a bundle, unless it is there already.

    Raises:
        StoreFailed: the store refused.
    """
    if not store.exists(bundle_key(digest)):
        store.put_bytes(archive, bundle_key(digest))


def fetch_bundle(store: ObjectStore, digest: str, folder: Path) -> None:
    """Unpack a bundle into an empty folder.

    Raises:
        StoreFailed: it cannot be fetched.
        ArtefactBroken: its content is not what its name says.
    """
    url = store.url(bundle_key(digest))
    try:
        content = gzip.decompress(store.get_bytes(bundle_key(digest)))
    except (OSError, EOFError) as error:
        raise ArtefactBroken(f"{url}: is damaged ({error}); delete it and submit again") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ArtefactBroken(f"{url}: its content does not match its name; delete it and submit again")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        strange = [member.name for member in tar if not member.isfile() or _leads_out(member.name)]
        if strange:
            raise ArtefactBroken(f"{url}: holds {strange[0]!r}, which no bundle does; delete it and submit again")
        # The filter came with Python 3.11.4.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(folder)


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _listed(root: Path) -> list[str]:
    """Files that belong to the project, relative to its root."""
    if (root / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
        if done.returncode == 0:
            return [name for name in os.fsdecode(done.stdout).split("\0") if name and _fit(root, name)]
    found = {path.relative_to(root).as_posix() for pattern in _OWN_FILES for path in root.glob(pattern)}
    return [name for name in found if _fit(root, name)]


def _below(root: Path, names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        path = root / name
        files = [path] if path.is_file() else [below for below in path.rglob("*") if below.is_file()]
        found += [file.relative_to(root).as_posix() for file in files]
    return [name for name in found if _fit(root, name)]


def _fit(root: Path, name: str) -> bool:
    path = root / name
    if name in _NEVER_FILES or path.suffix in _NEVER_SUFFIXES or set(path.relative_to(root).parts) & set(_NEVER):
        return False
    return path.is_file()


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Links are followed: the archive stands alone."""
    content = path.read_bytes()
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
    tar.addfile(entry, io.BytesIO(content))


def _refuse_credentials(config: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read(config)
    except configparser.Error as error:
        raise ArtefactBroken(f"{config}: DVC's settings cannot be read ({type(error).__name__})") from error
    found = [f"{section}: {key}" for section in parser.sections() for key in parser[section] if key in _SECRET_KEYS]
    if found:
        raise UsageError(
            f"{config} holds credentials ({', '.join(found)}), which would travel with the code: remove them and let boto3 "
            "find them (AWS_PROFILE, ~/.aws), or set them with dvc remote modify --local"
        )
