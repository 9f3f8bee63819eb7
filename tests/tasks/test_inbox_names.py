"""Whose footage a file of an inbox is: its name, its sidecar, and what is refused."""

import json

import pytest
from made_up_inbox import folder_of, put, scan

from gensync_core.speakers import Speaker
from tasks.inbox import Desk, look


@pytest.mark.parametrize(
    ("name", "sidecar", "says"),
    [
        ("Jürgen.mp4", None, "not allowed"),
        ("anna.mp4", "id: [1, 2", "cannot be read as YAML"),
        ("anna.mp4", "id: Anna Smith", "not allowed"),
        ("anna.mp4", "name: anna", "may have the keys id, group, consent"),
        ("anna.mp4", "group: family", "expected auto, cohort or adapted"),
        ("anna.mp4", "id: 7", "must be text"),
        ("anna.mp4", "- anna", "may have the keys"),
        ("anna.mp4", "consent: " + "x" * 70_000, "longer than a sidecar may be"),
        ("taken.mp4", None, "'taken' belongs to other footage (data/raw/taken.mp4)"),
    ],
)
def test_what_cannot_be_named_is_rejected_with_the_reason(
    name: str, sidecar: str | None, says: str, desk: Desk, onboarded: list[str]
) -> None:
    registry = desk.project.registry()
    registry.speakers["taken"] = Speaker(id="taken", raw="data/raw/taken.mp4", sha256="0" * 64, group="cohort")
    registry.save(desk.project.speakers_file)
    put(desk, name, "A", sidecar)
    scan(desk, onboarded)
    assert onboarded == []
    assert says in json.loads((folder_of(desk) / "rejected" / f"{name}.json").read_text())["reason"]


def test_a_sidecar_names_speaker_group_and_consent(desk: Desk) -> None:
    put(desk, "IMG_0001.mp4", "A")
    (folder_of(desk) / "IMG_0001.yaml").write_text("id: anna\ngroup: adapted\nconsent: letter of May 3\n")
    (due,) = look(desk, lambda _: True)
    assert (due.speaker, due.group, due.consent) == ("anna", "adapted", "letter of May 3")
