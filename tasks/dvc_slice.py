"""Runs an adapted speaker's stages in a slice of the project, so that what they cost does not grow with everybody else.

DVC reads and writes the whole `dvc.lock` for each stage, half a second for each speaker in it. A slice is a folder
`.gensync/slices/SPEAKER` that DVC takes for a project of its own: its `speakers.yaml` names this speaker only, its
`dvc.lock` holds this speaker's entries, and all else is a link to the project's: pipeline, code, parameters, data, models,
reports, resume states, DVC's cache. So a stage reads and writes the project's own files, and its entry, which names them
relative to the root, is the one that `dvc repro` in the project would have written; it is put into the project's `dvc.lock`
as soon as the stage is done.

A slice is made anew for each plan. What a killed run had finished in one is taken over by whoever plans or registers next.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gensync_core.artefacts import atomic_path
from gensync_core.errors import ArtefactBroken
from gensync_core.paths import Project
from gensync_core.speakers import Registry, Speaker
from tasks.lock_text import entries_of, lock_text, with_entries
from tasks.process import CommandFailed, is_stopping

_POLL_S = 0.2
_OWN = (".dvc", ".git", "dvc.lock", "speakers.yaml", "synth.yaml", "finetune.yaml")
"""What a slice does not share with the project."""
_HASHES = "site"
"""Where DVC remembers hashes of files that it has seen; kept while the slice is."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Slice:
    """Where a speaker's slice lies, made or not."""

    project: Project
    name: str

    @property
    def folder(self) -> Path:
        return _slices(self.project) / self.name

    @property
    def lock_file(self) -> Path:
        """Held exclusively by whoever makes or drops the slice, shared by those who run a stage in it."""
        return self.folder.with_name(f"{self.name}.lock")

    @property
    def registry_file(self) -> Path:
        """Written last, removed first: where it is, the slice is whole."""
        return self.folder / "speakers.yaml"

    @property
    def dvc_lock(self) -> Path:
        return self.folder / "dvc.lock"

    @property
    def seed(self) -> Path:
        """The entries that the project's `dvc.lock` has too; what differs from them was made here and is to be merged."""
        return self.folder / ".dvc" / "seed.lock"


def sliced_speaker(project: Project, scope: str | None) -> str | None:
    """The scope, if it is an adapted speaker whose stages can run in a slice.

    A project in which DVC looks after git has none: there DVC writes a `.gitignore` beside each out.
    """
    speaker = project.registry().speakers.get(scope) if scope is not None else None
    return scope if speaker is not None and speaker.group == "adapted" and _without_git(project) else None


def folder_of(project: Project, speaker: str | None) -> Path:
    """Root of what a speaker's stages run in."""
    return project.root if speaker is None else _Slice(project, speaker).folder


@contextmanager
def planning(project: Project, speaker: str | None) -> Iterator[Project]:
    """Where a plan has to look: a fresh slice of the project, or the project itself where no speaker is given.

    What others left in slices is taken over first. Nobody runs a stage in the slice meanwhile: who does is waited for.

    Raises:
        ArtefactBroken: `dvc.lock`, `speakers.yaml` or DVC's settings cannot be read.
    """
    take_over(project, but=speaker)
    if speaker is None:
        yield project
        return
    slice_ = _Slice(project, speaker)
    with _held(slice_.lock_file, speaker):
        _merge(slice_)
        _make(slice_, project.registry().get(speaker))
        yield Project(slice_.folder)


@contextmanager
def running(project: Project, speaker: str | None, address: str) -> Iterator[Project]:
    """Where a stage has to run; its entry is merged at the end. The same stage is not run twice at once: the second one waits.

    Raises:
        UsageError: the speaker was taken out meanwhile.
        ArtefactBroken: `dvc.lock`, `speakers.yaml` or DVC's settings cannot be read.
    """
    if speaker is None:
        adapted = sliced_speaker(project, address.partition("@")[2])
        with _alone(_Slice(project, adapted), address) if adapted is not None else nullcontext():
            yield project
        return
    slice_ = _Slice(project, speaker)
    while True:
        with _held(slice_.lock_file, speaker, shared=True):
            if slice_.registry_file.exists():
                with _alone(slice_, address):
                    try:
                        yield Project(slice_.folder)
                    finally:
                        _merge(slice_)
                return
        with _held(slice_.lock_file, speaker):
            if not slice_.registry_file.exists():
                _make(slice_, project.registry().get(speaker))


def add_file(project: Project, path: Path, add: Callable[[Project, Path], None]) -> None:
    """Give a newcomer's footage, which is named after the newcomer, to DVC by `add`: in a slice where that is possible.

    Raises:
        CommandFailed: DVC refused.
    """
    if not _without_git(project):
        add(project, path)
        return
    take_over(project)
    slice_ = _Slice(project, path.stem)
    relative = path.relative_to(project.root)
    with _held(slice_.lock_file, path.stem):
        try:
            _make(slice_, Speaker(id=path.stem, raw=relative.as_posix(), sha256="", group="adapted"), registered=False)
            added = slice_.folder / relative
            add(Project(slice_.folder), added)
            # DVC may have put a link to its cache in the file's place.
            if added.lstat().st_dev == path.lstat().st_dev:
                added.replace(path)
            with atomic_path(path.with_name(f"{path.name}.dvc")) as temporary:
                shutil.copyfile(added.with_name(f"{added.name}.dvc"), temporary)
        finally:
            _drop(slice_)


def take_over(project: Project, *, but: str | None = None) -> None:
    """Close all slices that nobody uses, all but one.

    Raises:
        ArtefactBroken: `dvc.lock` or `speakers.yaml` cannot be read.
    """
    folder = _slices(project)
    for name in sorted(os.listdir(folder)) if folder.exists() else ():
        if name != but and (folder / name).is_dir():
            close_slice(project, name)


def close_slice(project: Project, speaker: str) -> None:
    """Merge what lies finished in a speaker's slice, if that is still who it was, and remove it; one in use is left alone.

    Raises:
        ArtefactBroken: `dvc.lock` or `speakers.yaml` cannot be read.
    """
    slice_ = _Slice(project, speaker)
    if slice_.folder.exists():
        with _held(slice_.lock_file, speaker, wait=False) as held:
            if held:
                _merge(slice_)
                _drop(slice_)


def _slices(project: Project) -> Path:
    return (project.root / ".gensync" / "slices").resolve()


def _make(slice_: _Slice, speaker: Speaker, *, registered: bool = True) -> None:
    """Make the slice anew; only what DVC knows of files' hashes is kept. To be called with the slice's lock held."""
    project, folder = slice_.project, slice_.folder
    _clear(slice_)
    for shared in (project.speaker(speaker).folder.parents[1], project.model_folder.parent, project.root / "reports"):
        shared.mkdir(parents=True, exist_ok=True)
    _link_all(project.root, folder, Path(speaker.raw))
    _write_settings(project, folder)
    (folder / "synth.yaml").write_text("jobs: {}\n")
    (folder / "finetune.yaml").write_text("finetuned: []\n")
    with _project_lock(project):
        entries = entries_of(_read(project.root / "dvc.lock"), speaker.id, project.root / "dvc.lock")
    if entries:
        slice_.seed.write_bytes(lock_text(entries))
        slice_.dvc_lock.write_bytes(lock_text(entries))
    Registry({speaker.id: speaker} if registered else {}).save(slice_.registry_file)


def _clear(slice_: _Slice) -> None:
    slice_.registry_file.unlink(missing_ok=True)
    inside = slice_.folder / ".dvc"
    inside.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in [*slice_.folder.iterdir(), *inside.iterdir()]:
        if path not in (inside, inside / _HASHES):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link_all(source: Path, target: Path, raw: Path) -> None:
    """Link all that lies in the project's root; on the way to the footage folders are real, because DVC adds to no other."""
    source = source.resolve()
    for inside in reversed(raw.parents):
        (target / inside).mkdir(parents=True, exist_ok=True)
        if inside == raw.parent and inside != Path():
            break
        for path in (source / inside).iterdir():
            relative = inside / path.name
            if relative not in raw.parents and relative != raw and path.name not in _OWN:
                (target / relative).symlink_to(path)
    tracked = raw.with_name(f"{raw.name}.dvc")
    if (source / tracked).exists():
        shutil.copyfile(source / tracked, target / tracked)
    if (source / raw).exists():
        try:
            os.link(source / raw, target / raw)
        except OSError:  # another file system
            shutil.copy2(source / raw, target / raw)


def _write_settings(project: Project, folder: Path) -> None:
    """DVC's settings of the project, whose cache is used; for the owner's eyes, because remotes may need a password."""
    from dvc.config import Config, ConfigError, merge

    try:
        source = Config(str(project.root / ".dvc"))
        settings = source.load_one("repo")
        merge(settings, source.load_one("local"))
        cache = source.get("cache", {}).get("dir") or project.root.resolve() / ".dvc" / "cache"
        merge(settings, {"core": {"no_scm": True, "site_cache_dir": str(folder / ".dvc" / _HASHES)}})
        merge(settings, {"cache": {"dir": str(cache)}})
        editing: Any = Config(str(folder / ".dvc")).edit("repo")
        with editing as own:
            own.update(settings)
    except ConfigError as error:
        raise ArtefactBroken(f"{project.root / '.dvc' / 'config'}: cannot be used ({error})") from error


def _without_git(project: Project) -> bool:
    from dvc.config import Config, ConfigError

    try:
        return bool(Config(str(project.root / ".dvc")).get("core", {}).get("no_scm"))
    except ConfigError as error:
        raise ArtefactBroken(f"{project.root / '.dvc' / 'config'}: cannot be used ({error})") from error


def _merge(slice_: _Slice) -> None:
    """Put entries that were made in the slice into the project's `dvc.lock`, if the speaker is still who it was."""
    if not _is_still(slice_) or not _new_entries(slice_):
        return
    path = slice_.project.root / "dvc.lock"
    with _project_lock(slice_.project):
        made = _new_entries(slice_)  # another stage may have ended meanwhile
        if made:
            merged = with_entries(_read(path), slice_.name, made, path)
            with atomic_path(path) as temporary:
                temporary.write_bytes(merged)
            with atomic_path(slice_.seed) as temporary:
                temporary.write_bytes(lock_text(_entries(slice_, slice_.seed) | made))


def _is_still(slice_: _Slice) -> bool:
    """Whether the slice is whole, and its speaker is registered with the settings that the slice was made for."""
    if not slice_.registry_file.exists():
        return False
    try:
        here = Registry.load(slice_.registry_file).speakers.get(slice_.name)
    except ArtefactBroken:
        return False
    return here is not None and here == slice_.project.registry().speakers.get(slice_.name)


def _new_entries(slice_: _Slice) -> dict[str, bytes]:
    """What differs from the project's; nothing where a crash of the machine left the slice's files damaged."""
    try:
        known, made = _entries(slice_, slice_.seed), _entries(slice_, slice_.dvc_lock)
    except ArtefactBroken as error:
        _logger.warning("%s; what was done there is done again", error)
        return {}
    return {address: text for address, text in made.items() if known.get(address) != text}


def _entries(slice_: _Slice, path: Path) -> dict[str, bytes]:
    return entries_of(_read(path), slice_.name, path)


def _drop(slice_: _Slice) -> None:
    """To be called with the slice's lock held."""
    slice_.registry_file.unlink(missing_ok=True)
    shutil.rmtree(slice_.folder, ignore_errors=True)
    slice_.lock_file.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@contextmanager
def _project_lock(project: Project) -> Iterator[None]:
    """DVC's own lock of the project, which whoever reads or writes `dvc.lock` holds."""
    from dvc.config import Config
    from dvc.lock import make_lock

    folder = project.root / ".dvc" / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    hardlink = Config(str(project.root / ".dvc")).get("core", {}).get("hardlink_lock", False)
    with make_lock(str(folder / "lock"), tmp_dir=str(folder), hardlink_lock=hardlink, wait=True):
        yield


@contextmanager
def _alone(slice_: _Slice, address: str) -> Iterator[None]:
    """Wait until nobody runs this very stage, be it in the slice or in the project itself."""
    path = slice_.folder.with_name(f"{slice_.name}.{address.partition('@')[0]}.lock")
    with _held(path, address):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _held(path: Path, what: str, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; the value says whether it is held, which without waiting it need not be.

    Raises:
        CommandFailed: the user interrupted the waiting.
    """
    file = _lock(path, shared=shared)
    if file is None and wait:
        _logger.info("%s: another run is at work; waiting for it", what)
        while file is None:
            if is_stopping():
                raise CommandFailed(what, "interrupted", retryable=False)
            time.sleep(_POLL_S)
            file = _lock(path, shared=shared)
    try:
        yield file is not None
    finally:
        if file is not None:
            file.close()


def _lock(path: Path, *, shared: bool) -> IO[str] | None:
    """The open file, whose lock is held until it is closed; None: somebody else has it, or has just removed it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None
