"""Parts of a lock taken over without data, and only where they belong to what is here."""

import copy
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from memory_store import MemoryStore

from gensync_core.errors import ArtefactBroken
from gensync_core.paths import Project
from tasks.dvc_project import plan, read_lock, reproduce
from tasks.dvc_remote import LocalCache, missing_objects, object_key, publish_stage
from tasks.lock_merge import done_elsewhere, merge_parts

Enlist = Callable[..., None]
Made = tuple[dict[str, Any], LocalCache]
STAGES = ["coarse@anna", "coarse@bob", "ingest@anna", "ingest@bob", "joint"]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Where the toy project was run, once for all tests."""
    return Project(tmp_path_factory.mktemp("worker") / "toy")


@pytest.fixture
def made(toy: Project, enlist: Enlist, worker: Project) -> Made:
    """Anna and bob are in the toy project; lock and cache of a worker who ran it all."""
    enlist("anna", "anna")
    enlist("bob", "bob")
    if not worker.root.exists():
        shutil.copytree(toy.root, worker.root)
        for node in plan(worker, ["joint"]):
            reproduce(worker, node)
    return read_lock(worker), LocalCache(worker.root / ".dvc" / "cache")


def test_parts_are_taken_over_without_data_and_nothing_is_left_to_do(toy: Project, made: Made) -> None:
    lock, _ = made
    assert sorted(lock) == STAGES
    parts = [{"joint": lock["joint"]}, *({address: lock[address]} for address in lock if address != "joint")]
    merge = merge_parts(toy, parts)
    assert (sorted(merge.merged), merge.refused) == (STAGES, {})
    assert read_lock(toy) == lock
    assert not toy.shared.exists()
    nodes = [node.address for node in plan(toy, ["joint"])]
    assert sorted(nodes) == STAGES, "DVC would make what is not here"
    assert done_elsewhere(toy, nodes) == set(STAGES)


def test_what_ran_on_other_inputs_is_refused_with_all_below_it(toy: Project, made: Made, enlist: Enlist) -> None:
    lock, _ = made
    enlist("bob", "another bob")
    merge = merge_parts(toy, [lock])
    assert sorted(merge.merged) == ["coarse@anna", "ingest@anna"]
    assert merge.refused["ingest@bob"] == "data/raw/bob.mp4 is not what it read"
    assert merge.refused["coarse@bob"] == "data/speakers/cohort/bob/clip is not what it read"
    assert merge.refused["joint"] == "data/speakers/cohort is not what it read"
    assert sorted(read_lock(toy)) == ["coarse@anna", "ingest@anna"]


@pytest.mark.parametrize(
    ("file", "before", "after", "refused", "reason"),
    [
        ("params.yaml", "weight: 1", "weight: 2", ["joint"], "parameters in params.yaml have changed meanwhile"),
        ("toy.py", "import pathlib", "import  pathlib", STAGES, "toy.py"),
        ("dvc.yaml", "toy.py joint cohort", "toy.py joint everybody", ["joint"], "its command has changed meanwhile"),
    ],
)
def test_changed_settings_code_and_commands_count(
    file: str, before: str, after: str, refused: list[str], reason: str, toy: Project, made: Made
) -> None:
    text = (toy.root / file).read_text()
    assert before in text
    (toy.root / file).write_text(text.replace(before, after))
    merge = merge_parts(toy, [made[0]])
    assert sorted(merge.refused) == refused
    assert all(reason in said for said in merge.refused.values())


def test_a_removed_speaker_is_not_taken_over(toy: Project, made: Made) -> None:
    registry = toy.registry()
    del registry.speakers["bob"]
    registry.save(toy.speakers_file)
    merge = merge_parts(toy, [made[0]])
    assert sorted(merge.merged) == ["coarse@anna", "ingest@anna"]
    assert merge.refused["ingest@bob"] == "there is no such stage any more"
    assert "joint" in merge.refused, "it was trained on somebody who is not there any more"


def test_an_older_result_counts_no_more_once_an_input_has_changed(toy: Project, made: Made) -> None:
    merge_parts(toy, [made[0]])
    lock = copy.deepcopy(made[0]["ingest@bob"])
    lock["outs"][0]["md5"] = "0" * 32
    merge_parts(toy, [{"ingest@bob": lock}])
    nodes = [node.address for node in plan(toy, ["joint"])]
    assert done_elsewhere(toy, nodes) == {"ingest@anna", "ingest@bob", "coarse@anna"}


def test_what_is_not_wholly_in_the_remote_is_refused(toy: Project, made: Made) -> None:
    lock, cache = made
    files = {path.relative_to(cache.folder).as_posix(): path.read_bytes() for path in cache.folder.rglob("*") if path.is_file()}
    store = MemoryStore(files)
    assert merge_parts(toy, [lock], store).refused == {}
    (toy.root / "dvc.lock").unlink()
    store.delete(object_key(lock["coarse@bob"]["outs"][0]["md5"]))
    # Both of bob's files hold the same text, so it is one object.
    merge = merge_parts(toy, [lock], store)
    assert merge.refused["ingest@bob"] == "data/speakers/cohort/bob/clip is missing from the remote"
    assert sorted(merge.merged) == ["coarse@anna", "ingest@anna"]


def test_a_folder_is_there_only_with_every_file_in_it() -> None:
    entry = {"outs": [{"path": "models", "md5": "ab" + "1" * 30 + ".dir"}]}
    files = {object_key("ab" + "1" * 30 + ".dir"): b'[{"md5": "cd", "relpath": "x"}]', object_key("cd"): b"x"}
    assert missing_objects(MemoryStore(dict(files)), entry) == []
    for lost in files:
        assert missing_objects(MemoryStore({key: value for key, value in files.items() if key != lost}), entry) == ["models"]
    assert missing_objects(MemoryStore(files | {object_key("ab" + "1" * 30 + ".dir"): b"damaged"}), entry) == ["models"]


@pytest.mark.fault("cache object missing on push")
def test_a_stage_whose_object_is_lost_from_the_cache_is_not_published(toy: Project, enlist: Enlist) -> None:
    enlist("anna")
    (node,) = plan(toy, ["ingest@anna"])
    reproduce(toy, node)
    entry = read_lock(toy)["ingest@anna"]
    lost = toy.root / ".dvc" / "cache" / object_key(entry["outs"][0]["md5"])
    lost.unlink()
    store = MemoryStore()
    with pytest.raises(ArtefactBroken, match=r"ingest@anna is not published: .*/anna/clip is missing from DVC"):
        publish_stage(toy, node.address, entry, store)
    assert store.objects == {}


def test_a_damaged_lock_is_a_broken_artefact(toy: Project) -> None:
    (toy.root / "dvc.lock").write_text("stages: [")
    with pytest.raises(ArtefactBroken, match=r"dvc\.lock: cannot be read"):
        read_lock(toy)
