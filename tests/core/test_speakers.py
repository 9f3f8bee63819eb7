from dataclasses import replace

import pytest
import yaml

from gensync_core.errors import ArtefactBroken, FootageRejected, UsageError
from gensync_core.speakers import Registry, Speaker, check_speaker_id


def _speaker(speaker_id, group="cohort"):
    return Speaker(id=speaker_id, raw=f"data/raw/{speaker_id}.mp4", sha256="0" * 64, group=group)


def test_round_trip_keeps_order_and_groups(tmp_path):
    path = tmp_path / "speakers.yaml"
    Registry({name: _speaker(name, group) for name, group in (("zoe", "cohort"), ("abe", "adapted"), ("bob", "cohort"))}).save(
        path
    )
    loaded = Registry.load(path)
    assert loaded.ids() == ["zoe", "abe", "bob"]
    assert loaded.ids("cohort") == ["zoe", "bob"]
    assert loaded.get("abe") == _speaker("abe", "adapted")


def test_the_c_library_writes_the_same_text(tmp_path):
    consents = [
        None,
        "letter of May 3",
        "Frau Müller: 'ja', \"gern\"",
        "ok # no comment",
        "a: b",
        "1",
        "word " * 40,
        "two\nlines\n",
    ]
    speakers = {f"s-{number}": replace(_speaker(f"s-{number}"), consent=text) for number, text in enumerate(consents)}
    path = tmp_path / "speakers.yaml"
    Registry(speakers).save(path)
    assert path.read_text() == yaml.safe_dump(yaml.safe_load(path.read_text()), sort_keys=False)
    assert Registry.load(path).speakers == speakers


def test_absent_file_is_an_empty_registry(tmp_path):
    assert Registry.load(tmp_path / "speakers.yaml").ids() == []


@pytest.mark.parametrize("bad", ["", "a/b", "Alice", "../x", "-a", "a" * 64, "a b", "ä", "a\n"])
def test_unsafe_ids_are_refused(bad):
    with pytest.raises(FootageRejected, match="not allowed"):
        check_speaker_id(bad)


@pytest.mark.parametrize("good", ["a", "0", "anchor_en-71s", "a" * 63])
def test_safe_ids_pass(good):
    assert check_speaker_id(good) == good


def test_lists_that_contradict_the_groups_are_refused(tmp_path):
    path = tmp_path / "speakers.yaml"
    Registry({"a": _speaker("a")}).save(path)
    path.write_text(path.read_text().replace("adapted: []", "adapted: [a]"))
    with pytest.raises(ArtefactBroken, match="adapted"):
        Registry.load(path)


def test_unknown_speaker_names_the_known_ones():
    with pytest.raises(UsageError, match="onboarded: a"):
        Registry({"a": _speaker("a")}).get("b")
