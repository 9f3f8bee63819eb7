"""Where an inbox is: a folder or an S3 prefix. Files lie directly in it; what is done with, in `onboarded/` and `rejected/`."""

import errno
import fcntl
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gensync_core.artefacts import atomic_path, sha256_of
from gensync_core.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxFile:
    """A file in an inbox.

    Attributes:
        name: of the file.
        size: bytes.
        mark: changes when it is written.
        modified: seconds since the epoch of the last write.
        being_written: somebody on this machine has it open for writing; False where that cannot be known.
    """

    name: str
    size: int
    mark: str
    modified: float
    being_written: bool = False


class Inbox(Protocol):
    """What a scan asks of an inbox; names are relative to it, those of folders end before a `/`."""

    address: str

    def files(self) -> Iterable[InboxFile]:
        """Files directly in the inbox, by name."""
        ...

    def fetch(self, name: str, scratch: Path) -> tuple[Path, str]:
        """The file on this machine (`scratch` where it has to be copied) and the sha256 of its content."""
        ...

    def read(self, name: str) -> bytes:
        """A small file's content."""
        ...

    def write(self, content: bytes, name: str) -> None:
        """Write a small file whole."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def move(self, name: str, new_name: str) -> None:
        """Move a file within the inbox; one of that name is replaced."""
        ...


class InboxFolder:
    """A folder on this machine or one that it has mounted; links and subfolders in it are left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.address = str(self.folder)

    def files(self) -> list[InboxFile]:
        """Files directly in the folder, by name.

        Raises:
            UsageError: there is no such folder.
        """
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder}: the inbox is no folder; make it, or name another one")
        found = []
        for path in sorted(self.folder.iterdir()):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if path.is_symlink() or not path.is_file():
                continue
            found.append(
                InboxFile(
                    name=path.name,
                    size=status.st_size,
                    mark=f"{status.st_mtime_ns}-{status.st_ino}",
                    modified=status.st_mtime,
                    being_written=_being_written(path),
                )
            )
        return found

    def fetch(self, name: str, scratch: Path) -> tuple[Path, str]:
        """The file where it is; nothing is copied."""
        path = self.folder / name
        return path, sha256_of(path)

    def read(self, name: str) -> bytes:
        """A small file's content."""
        return (self.folder / name).read_bytes()

    def write(self, content: bytes, name: str) -> None:
        """Write a small file whole."""
        with atomic_path(self.folder / name) as temporary:
            temporary.write_bytes(content)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.folder / name).exists()

    def move(self, name: str, new_name: str) -> None:
        """Move a file within the folder; one of that name is replaced."""
        target = self.folder / new_name
        target.parent.mkdir(exist_ok=True)
        (self.folder / name).replace(target)


class InboxBucket:
    """An S3 prefix. Objects appear whole; a digest is taken of what was fetched, for ETags of multipart uploads are none."""

    def __init__(self, url: str) -> None:
        from tasks.object_store import ObjectStore

        self._store = ObjectStore(url)
        self.address = self._store.url()

    def files(self) -> list[InboxFile]:
        """Objects directly below the prefix, by name.

        Raises:
            StoreFailed: the bucket cannot be listed.
        """
        return [
            InboxFile(name=found.key, size=found.size, mark=found.etag, modified=found.modified.timestamp())
            for found in self._store.list(deep=False)
            if found.key and not found.key.endswith("/")
        ]

    def fetch(self, name: str, scratch: Path) -> tuple[Path, str]:
        """A copy of the object in `scratch`; one that was fetched before is taken.

        Raises:
            StoreFailed: it cannot be fetched.
        """
        return scratch, sha256_of(scratch) if scratch.exists() else self._store.get(name, scratch)

    def read(self, name: str) -> bytes:
        """A small object's content."""
        return self._store.get_bytes(name)

    def write(self, content: bytes, name: str) -> None:
        """Store a small object."""
        self._store.put_bytes(content, name)

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self._store.exists(name)

    def move(self, name: str, new_name: str) -> None:
        """Move an object below the prefix; one of that name is replaced."""
        self._store.move(name, new_name)


def open_inbox(address: str) -> Inbox:
    """The inbox at a folder's path or `s3://bucket/prefix`.

    Raises:
        UsageError: the address is of neither form.
    """
    if address.startswith("s3://"):
        return InboxBucket(address)
    if "://" in address:
        raise UsageError(f"{address}: an inbox is a folder or s3://bucket/prefix")
    return InboxFolder(Path(address))


def _being_written(path: Path) -> bool:
    """Whether a process of this machine has the file open for writing: Linux grants no read lease on it then."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        with path.open("rb") as file:
            # A writer who comes while we hold the lease waits for us; its signal must not be the default one, which kills.
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False
