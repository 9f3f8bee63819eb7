"""Which files of an inbox are footage, and whose: the id comes from the file's name or from a YAML file beside it.

```yaml
# anna.mp4.yaml or anna.yaml beside anna.mp4; every line may be left out
id: anna
group: adapted        # auto, cohort or adapted
consent: letter of May 3
```
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from gensync_core.errors import FootageRejected
from gensync_core.speakers import GROUPS, check_speaker_id
from tasks.inbox_places import Inbox

_SIDECARS = (".yaml", ".yml")
_UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart")
_LONGEST_SIDECAR = 64 * 1024
_KEYS = ("id", "group", "consent")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A file of an inbox together with the sidecar that belongs to it.

    Attributes:
        name: of the file.
        size: bytes.
        mark: changes when the file or its sidecar is written.
        modified: seconds since the epoch of the last write to either.
        being_written: somebody has the file open for writing.
        sidecar: its name, where there is one.
        sidecar_size: bytes.
    """

    name: str
    size: int
    mark: str
    modified: float
    being_written: bool
    sidecar: str | None = None
    sidecar_size: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Whose footage it is, and into which group the speaker is to come."""

    speaker: str
    group: str = "auto"
    consent: str | None = None


def is_unfinished_name(name: str) -> bool:
    """Whether programs that copy or download give such a name to what is not whole yet."""
    return name.lower().endswith(_UNFINISHED)


def arrivals_of(inbox: Inbox) -> Iterator[Arrival]:
    """Footage in an inbox; hidden files are none."""
    files = {file.name: file for file in inbox.files() if not file.name.startswith(".")}
    for name, file in files.items():
        if name.lower().endswith(_SIDECARS):
            continue
        stems = (name, PurePosixPath(name).stem)
        sidecar = next((files[stem + end] for stem in stems for end in _SIDECARS if stem + end in files), None)
        if sidecar is None:
            yield Arrival(name=name, size=file.size, mark=file.mark, modified=file.modified, being_written=file.being_written)
            continue
        yield Arrival(
            name=name,
            size=file.size,
            mark=f"{file.mark}+{sidecar.mark}",
            modified=max(file.modified, sidecar.modified),
            being_written=file.being_written or sidecar.being_written,
            sidecar=sidecar.name,
            sidecar_size=sidecar.size,
        )


def identity_of(inbox: Inbox, arrival: Arrival) -> Identity:
    """Read whose footage a file is.

    Raises:
        FootageRejected: the id is not allowed, or the sidecar cannot be used.
    """
    said = _read_sidecar(inbox, arrival) if arrival.sidecar else {}
    speaker = said.get("id") or id_from(arrival.name)
    try:
        check_speaker_id(speaker)
    except FootageRejected as error:
        raise FootageRejected(f"{error}; rename the file, or say `id:` in {arrival.name}.yaml beside it") from None
    return Identity(speaker=speaker, group=said.get("group") or "auto", consent=said.get("consent"))


def _read_sidecar(inbox: Inbox, arrival: Arrival) -> dict[str, Any]:
    assert arrival.sidecar is not None
    if arrival.sidecar_size > _LONGEST_SIDECAR:
        raise FootageRejected(f"{arrival.sidecar}: is longer than a sidecar may be ({_LONGEST_SIDECAR} bytes)")
    try:
        said = yaml.safe_load(inbox.read(arrival.sidecar).decode()) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FootageRejected(f"{arrival.sidecar}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(said, dict) or not set(said) <= set(_KEYS):
        raise FootageRejected(f"{arrival.sidecar}: may have the keys {', '.join(_KEYS)} and no others")
    for key, value in said.items():
        if value is not None and not isinstance(value, str):
            raise FootageRejected(f"{arrival.sidecar}: {key} must be text, put it in quotes")
    if said.get("group") not in (None, "auto", *GROUPS):
        raise FootageRejected(f"{arrival.sidecar}: group is {said['group']!r}, expected auto, {' or '.join(GROUPS)}")
    return said


def id_from(name: str) -> str:
    """The id that a file's name asks for; whether it is allowed is for `check_speaker_id` to say."""
    return PurePosixPath(name).stem.lower().replace(" ", "-")
