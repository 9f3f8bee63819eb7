"""`dvc.lock` as text: takes one speaker's entries out and puts them back without parsing those of everybody else.

A thousand speakers make a file of 44 MB, which takes minutes to be parsed and written. DVC's own form is known well enough
to find an entry in it by its name; a file of any other form is parsed as a whole.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gensync_core.errors import ArtefactBroken

_HEAD = b"schema: '2.0'\nstages:\n"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NEXT_SECTION = re.compile(rb"\n[^ \n]")
_NEXT_ENTRY = re.compile(rb"\n {0,2}[^ \n]")
_FIRST_ENTRY = re.compile(rb"(  [^ \n]|$)")
_NAME_GOES_ON = re.compile(rb"[A-Za-z0-9_-]")
_ANY_HEAD = re.compile(rb"^  [^ \n].*\n", re.MULTILINE)
_KEY = re.compile(rb"  ([A-Za-z0-9_-]+(|@[A-Za-z0-9_-]+)):\n")

Span = tuple[int, int]


def load_yaml(text: str | bytes) -> Any:
    """Parse YAML as `yaml.safe_load` does, by the C library where there is one.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=_LOADER)


def dump_yaml(content: Any) -> str:
    """The text that `yaml.safe_dump` makes, keys in their order, by the C library where there is one."""
    return yaml.dump(content, Dumper=_DUMPER, sort_keys=False)


def entries_of(text: bytes, speaker: str, path: Path) -> dict[str, bytes]:
    """A speaker's entries, address -> text as it stands in the file, in the order of the file.

    Args:
        text: content of a `dvc.lock`; may be empty.
        speaker: id of the speaker.
        path: whose content it is, for the error.

    Raises:
        ArtefactBroken: the file is damaged.
    """
    spans = _spans(text or _HEAD, speaker)
    if spans is not None:
        return {address: text[start:end] for address, (start, end) in spans.items()}
    stages = _parsed(text, path)["stages"]
    return {address: _entry_text(address, stages[address]) for address in stages if address.partition("@")[2] == speaker}


def without_others(text: bytes, speaker: str, path: Path) -> bytes:
    """The file's text with only the speaker's entries and those of stages that are everybody's.

    Raises:
        ArtefactBroken: the file is damaged.
    """
    heads = [*_ANY_HEAD.finditer(text)] if _in_form(text) else []
    names = [_KEY.match(head[0]) for head in heads]
    if not heads or not all(names):
        content = _parsed(text, path)
        content["stages"] = {key: content["stages"][key] for key in content["stages"] if key.partition("@")[2] in ("", speaker)}
        return dump_yaml(content).encode()
    ends = [*(head.start() for head in heads[1:]), len(text)]
    kept = [name is not None and name[2].decode() in ("", f"@{speaker}") for name in names]
    return _HEAD + b"".join(text[head.start() : end] for head, end, keep in zip(heads, ends, kept, strict=True) if keep)


def with_entries(text: bytes, speaker: str, entries: Mapping[str, bytes], path: Path) -> bytes:
    """The file's text with a speaker's entries put in: in place of those of the same address, else at the end, as DVC does.

    Raises:
        ArtefactBroken: the file is damaged.
    """
    text = text or _HEAD
    spans = _spans(text, speaker)
    if spans is None:
        content = _parsed(text, path)
        content["stages"] |= load_yaml(b"".join(entries.values()))
        return dump_yaml(content).encode()
    parts, last = [], 0
    for address, (start, end) in spans.items():
        if address in entries:
            parts += [text[last:start], entries[address]]
            last = end
    parts.append(text[last:])
    return b"".join([*parts, *(entry for address, entry in entries.items() if address not in spans)])


def lock_text(entries: Mapping[str, bytes]) -> bytes:
    """A `dvc.lock` of these entries only; empty where there are none."""
    return _HEAD + b"".join(entries.values()) if entries else b""


def _spans(text: bytes, speaker: str) -> dict[str, Span] | None:
    """From where to where the speaker's entries go, in their order; None: the text is not in DVC's form."""
    if not _in_form(text):
        return None
    spans: dict[str, Span] = {}
    needle = f"@{speaker}".encode()
    found = text.find(needle)
    while found >= 0:
        after = found + len(needle)
        start = text.rfind(b"\n", 0, found) + 1
        # Entries stand two spaces deep; whatever names the speaker further down is content of an entry.
        if text[start + 2 : start + 3] != b" " and not _NAME_GOES_ON.match(text, after):
            key = _KEY.match(text, start)
            if key is None or key.end() != after + len(b":\n") or key[1].decode() in spans:
                return None
            following = _NEXT_ENTRY.search(text, key.end() - 1)
            spans[key[1].decode()] = start, following.start() + 1 if following else len(text)
        found = text.find(needle, after)
    return spans


def _in_form(text: bytes) -> bool:
    """Whether the text is as DVC writes it: the schema, then stages two spaces deep, and nothing else."""
    starts = text.startswith(_HEAD) and text.endswith(b"\n") and _FIRST_ENTRY.match(text, len(_HEAD))
    return bool(starts) and not _NEXT_SECTION.search(text, len(_HEAD) - 1)


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = dict(load_yaml(text) or {"schema": "2.0"})
        content["stages"] = dict(content.get("stages") or {})
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ArtefactBroken(f"{path}: cannot be read ({error}); restore it from version control") from error
    return content


def _entry_text(address: str, entry: Any) -> bytes:
    return dump_yaml({"stages": {address: entry}}).partition("\n")[2].encode()
