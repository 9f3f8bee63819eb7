"""Taking entries out of the text of a `dvc.lock` and putting them in gives what a parser and a writer of the whole would."""

from pathlib import Path

import pytest
import yaml

from gensync_core.errors import ArtefactBroken
from tasks.lock_text import entries_of, load_yaml, lock_text, with_entries, without_others

PATH = Path("dvc.lock")


def entry(md5: str, cmd: str = "python toy.py ingest") -> dict[str, object]:
    return {"cmd": cmd, "deps": [{"path": "data/raw/x@anna", "md5": md5, "size": 4}], "params": {"params.yaml": {"gain": 1}}}


STAGES = {
    "ingest@anna": entry("1"),
    "ingest@anna-2": entry("2"),
    "joint": entry("3"),
    "coarse@anna": entry("4", "echo one\n\necho two @anna:\n"),
    "coarse@bob": entry("5"),
}
CONTENT = {"schema": "2.0", "stages": STAGES}
CANONICAL = yaml.safe_dump(CONTENT, sort_keys=False).encode()
OTHER_FORMS = {
    "flow": yaml.safe_dump(CONTENT, default_flow_style=True, sort_keys=False).encode(),
    "four spaces": yaml.safe_dump(CONTENT, indent=4, sort_keys=False).encode(),
    "quoted": CANONICAL.replace(b"  ingest@anna:", b"  'ingest@anna':"),
    "a section below": CANONICAL + b"datasets: []\n",
    "CRLF": CANONICAL.replace(b"\n", b"\r\n"),
    "a comment in front": b"# made by DVC\n" + CANONICAL,
    "no last line break": CANONICAL.rstrip(b"\n"),
}


def test_entries_are_taken_as_they_stand() -> None:
    entries = entries_of(CANONICAL, "anna", PATH)
    assert list(entries) == ["ingest@anna", "coarse@anna"]
    assert all(text in CANONICAL for text in entries.values())
    assert load_yaml(lock_text(entries))["stages"] == {name: STAGES[name] for name in entries}
    assert entries_of(b"", "anna", PATH) == {} == entries_of(CANONICAL, "ann", PATH)
    assert lock_text({}) == b""


def test_only_the_speakers_entries_change() -> None:
    made = {"ingest@anna": entry("6"), "evaluate@anna": entry("7")}
    texts = entries_of(yaml.safe_dump({"schema": "2.0", "stages": made}, sort_keys=False).encode(), "anna", PATH)
    merged = with_entries(CANONICAL, "anna", texts, PATH)
    assert merged == yaml.safe_dump({"schema": "2.0", "stages": STAGES | made}, sort_keys=False).encode()
    assert with_entries(merged, "anna", texts, PATH) == merged
    assert with_entries(b"", "anna", texts, PATH) == lock_text(texts)
    assert entries_of(merged, "bob", PATH) == entries_of(CANONICAL, "bob", PATH)


def test_entries_of_others_are_left_out() -> None:
    kept = {name: entry for name, entry in STAGES.items() if name in ("ingest@anna", "joint", "coarse@anna")}
    assert without_others(CANONICAL, "anna", PATH) == yaml.safe_dump(CONTENT | {"stages": kept}, sort_keys=False).encode()
    assert load_yaml(without_others(CANONICAL, "zoe", PATH))["stages"] == {"joint": STAGES["joint"]}
    assert not load_yaml(without_others(b"", "anna", PATH))["stages"]


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_another_form_is_parsed(form: str) -> None:
    text = OTHER_FORMS[form]
    assert (
        load_yaml(without_others(text, "anna", PATH))["stages"] == load_yaml(without_others(CANONICAL, "anna", PATH))["stages"]
    )
    assert entries_of(text, "anna", PATH) == entries_of(CANONICAL, "anna", PATH)
    made = entries_of(yaml.safe_dump({"schema": "2.0", "stages": {"ingest@anna": entry("6")}}).encode(), "anna", PATH)
    merged = yaml.safe_load(with_entries(text, "anna", made, PATH))
    assert merged == yaml.safe_load(text) | {"stages": STAGES | {"ingest@anna": entry("6")}}
    assert list(merged["stages"]) == list(STAGES)


@pytest.mark.parametrize("text", [b"stages: [", b"schema: '2.0'\nstages: text\n", b"- a list\n"])
def test_a_damaged_file_is_said_to_be(text: bytes) -> None:
    with pytest.raises(ArtefactBroken, match=r"dvc\.lock: cannot be read"):
        entries_of(text, "anna", PATH)
