"""Keeps the resume states of trainings in the store while they run, so that they outlive a spot machine."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.object_store import ObjectMissing, ObjectStore, StoreFailed

_EVERY_S = 60.0
# Decoded frames are made again faster than fetched.
_NOT_KEPT = ("frames",)


class ScratchMirror:
    """While open, what changes in the scratch folder is copied to the store now and then, and once more at the end.

    Folders in there are named after the digest of what the training reads, so a state is never taken for another
    training's. A store that does not answer costs progress, not the training.
    """

    def __init__(self, store: ObjectStore, prefix: str, folder: Path, *, every_s: float = _EVERY_S) -> None:
        self.store, self.prefix, self.folder, self.every_s = store, prefix, folder, every_s
        self._discarded = False
        self._seen: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="scratch-mirror", daemon=True)

    def __enter__(self) -> Self:
        """Fetch what an earlier worker left, then watch."""
        for found in list(self.store.list(f"{self.prefix}/")):
            name = found.key.removeprefix(f"{self.prefix}/")
            try:
                self.store.get(found.key, self.folder / name)
                self._seen[name] = _mark(self.folder / name)
            except ObjectMissing:
                continue  # its training ended meanwhile
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Copy once more what has changed."""
        self._stop.set()
        if not self._discarded:
            self.copy()

    def copy(self) -> None:
        """Copy what is new or has changed."""
        with self._busy:
            for path in sorted(self.folder.rglob("*")) if self.folder.is_dir() else []:
                name = path.relative_to(self.folder).as_posix()
                if not path.is_file() or name.startswith(".") or "/." in name or name.split("/")[0] in _NOT_KEPT:
                    continue
                try:
                    mark = _mark(path)
                    if self._seen.get(name) != mark:
                        self.store.put(path, f"{self.prefix}/{name}")
                        self._seen[name] = mark
                except (OSError, StoreFailed):
                    continue  # replaced or gone at this moment, or the store is busy: next time

    def discard(self) -> None:
        """Forget the states: their trainings have ended."""
        self._stop.set()
        with self._busy:
            self._discarded = True
            for name in self._seen:
                self.store.delete(f"{self.prefix}/{name}")
                (self.folder / name).unlink(missing_ok=True)
            self._seen.clear()

    def _watch(self) -> None:
        while not self._stop.wait(self.every_s):
            self.copy()


def _mark(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
