"""`speakers.yaml`: who is in the project. The file drives `foreach` in `dvc.yaml` and is read by the stages.

```yaml
speakers:
  alice: {raw: data/raw/alice.mp4, sha256: ..., group: cohort, consent: null}
  radio: {raw: data/raw/radio.mp4, sha256: ..., group: adapted, consent: null}
cohort: [alice]      # derived from the groups; DVC cannot filter a dict
adapted: [radio]
```
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from gensync_core.artefacts import atomic_path
from gensync_core.errors import ArtefactBroken, FootageRejected, UsageError

GROUPS = ("cohort", "adapted")
# The C library reads and writes a thousand speakers in a tenth of the time.
_LOADER, _DUMPER = getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaker:
    """One onboarded person.

    Attributes:
        id: lower-case name, `^[a-z0-9][a-z0-9_-]{0,62}$`.
        raw: footage, relative to the project's root.
        sha256: digest of the footage as it was onboarded.
        group: `cohort` (trained jointly) or `adapted` (fitted against the frozen shared network).
        consent: reference to the consent record of the person, if one was given.
    """

    id: str
    raw: str
    sha256: str
    group: str
    consent: str | None = None

    def __post_init__(self) -> None:
        check_speaker_id(self.id)
        if self.group not in GROUPS:
            raise ValueError(f"speaker {self.id}: group is {self.group!r}, expected one of {GROUPS}")


def check_speaker_id(speaker_id: str) -> str:
    """Return the id unchanged.

    Raises:
        FootageRejected: the id is not safe as a file, stage and task name.
    """
    if not _ID.fullmatch(speaker_id):
        raise FootageRejected(
            f"speaker id {speaker_id!r} is not allowed: use lower-case letters, digits, '-' and '_' "
            "(at most 63, starting with a letter or digit)"
        )
    return speaker_id


class Registry:
    """The content of `speakers.yaml`, in the order of the file."""

    def __init__(self, speakers: dict[str, Speaker]) -> None:
        self.speakers = speakers

    @classmethod
    def load(cls, path: Path) -> "Registry":
        """Read and check `speakers.yaml`; an absent file is an empty registry.

        Raises:
            ArtefactBroken: the file is not what this module writes.
        """
        if not path.exists():
            return cls({})
        try:
            content = yaml.load(path.read_text(), Loader=_LOADER) or {}
            entries: dict[str, dict[str, Any]] = content.get("speakers") or {}
            speakers = {key: Speaker(id=key, **entry) for key, entry in entries.items()}
        except (yaml.YAMLError, AttributeError, TypeError, ValueError, FootageRejected) as error:
            raise ArtefactBroken(f"{path}: not a valid speakers file ({error}); restore it from version control") from error
        registry = cls(speakers)
        for group in GROUPS:
            if list(content.get(group) or []) != registry.ids(group):
                raise ArtefactBroken(
                    f"{path}: the list {group!r} does not match the groups of the speakers; "
                    f"it should read {group}: {registry.ids(group)}"
                )
        return registry

    def save(self, path: Path) -> None:
        """Write the file whole, with the derived group lists."""
        entries = {key: asdict(speaker) for key, speaker in self.speakers.items()}
        for entry in entries.values():
            del entry["id"]
        content = {"speakers": entries} | {group: self.ids(group) for group in GROUPS}
        with atomic_path(path) as temporary:
            temporary.write_text(yaml.dump(content, Dumper=_DUMPER, sort_keys=False))

    def ids(self, group: str | None = None) -> list[str]:
        """Ids of one group, or of all speakers."""
        return [key for key, speaker in self.speakers.items() if group in (None, speaker.group)]

    def get(self, speaker_id: str) -> Speaker:
        """Return one speaker.

        Raises:
            UsageError: nobody of that name was onboarded.
        """
        try:
            return self.speakers[speaker_id]
        except KeyError:
            known = ", ".join(self.speakers) or "nobody yet"
            raise UsageError(f"no speaker {speaker_id!r} here; onboarded: {known}") from None
