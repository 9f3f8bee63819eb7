"""`dvc`, which writes `dvc.lock` and its own table of running commands whole or not at all; run as a script.

DVC empties these files and then writes them anew: killed in between (for hundreds of speakers that takes seconds), it would
leave a `dvc.lock` that has lost what stages had made, or a table that no later command can read.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dvc.cli import main
from dvc.fs import localfs

_WHOLE = ("dvc.lock", "rwlock")
_FileSystem: Any = type(localfs.fs)
_open = _FileSystem.open


def write_whole() -> None:
    """From now on DVC writes these files beside their place and renames them."""
    _FileSystem.open = _open_whole


def _open_whole(file_system: Any, path: str, mode: str = "r", encoding: str | None = None, **options: Any) -> Any:
    if mode.startswith("w") and os.path.basename(path) in _WHOLE:
        return _replacing(Path(path).resolve(), encoding)
    return _open(file_system, path, mode=mode, encoding=encoding, **options)


@contextmanager
def _replacing(path: Path, encoding: str | None) -> Iterator[IO[str]]:
    own = path.parent / ".dvc" / "tmp"
    # DVC holds a lock of its own meanwhile, so that one name will do; what a kill leaves there is written over.
    temporary = (own if own.is_dir() else path.parent) / f"{path.name}.new"
    try:
        with temporary.open("w", encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


if __name__ == "__main__":
    write_whole()
    sys.exit(main(sys.argv[1:]))
