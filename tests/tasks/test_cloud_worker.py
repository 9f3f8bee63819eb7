"""What a worker does before and around its stages; whole chains run in tests/flows/test_cloud.py."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from memory_store import MemoryStore

from gensync_core.errors import ArtefactBroken, UsageError
from gensync_core.paths import Project
from tasks import cloud_worker, dvc_project, dvc_remote
from tasks.cloud_submission import read_part
from tasks.cloud_worker import keep_only, main, own_folder, read_manifest
from tasks.scratch_mirror import ScratchMirror


def test_a_manifest_is_checked_against_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps({"schema_version": 1, "code": "c", "remote": "s3://b/dvc", "entries": []}).encode()
    name = f"{hashlib.sha256(content).hexdigest()}.json"
    store = MemoryStore({f"manifests/{name}": content})
    monkeypatch.setattr(cloud_worker, "ObjectStore", lambda url: store)
    assert read_manifest(f"s3://b/x/manifests/{name}")[1]["code"] == "c"
    store.objects[f"manifests/{name}"] = content + b" "
    with pytest.raises(ArtefactBroken, match="does not match its name"):
        read_manifest(f"s3://b/x/manifests/{name}")
    with pytest.raises(UsageError, match="not the address of a manifest"):
        read_manifest("s3://b/x")


def test_wrong_use_and_a_missing_entry_have_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 2
    assert main(["s3://b/x"]) == 2
    content = json.dumps({"schema_version": 1, "code": "c", "remote": "s3://b/dvc", "entries": []}).encode()
    name = f"{hashlib.sha256(content).hexdigest()}.json"
    monkeypatch.setattr(cloud_worker, "ObjectStore", lambda url: MemoryStore({f"manifests/{name}": content}))
    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", "7")
    assert main([f"s3://b/x/manifests/{name}"]) == 4
    assert "has no entry 7" in capsys.readouterr().out


def test_a_chain_of_one_speaker_sees_no_other(toy: Project, enlist: Callable[..., None]) -> None:
    ids = ["anna", "bob"]
    for name in ids:
        enlist(name)
    lock = toy.root / "dvc.lock"
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": {f"ingest@{key}": {"cmd": "x"} for key in ids} | {"joint": {}}}))
    before = lock.read_bytes()
    keep_only(toy, "shared")
    assert (toy.registry().ids(), lock.read_bytes()) == (ids, before)
    keep_only(toy, ids[0])
    assert toy.registry().ids() == ["anna"]
    assert set(dvc_project.read_lock(toy)) == {"ingest@anna", "joint"}


def test_workers_have_folders_of_their_own_and_leave_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSYNC_WORK", str(tmp_path / "work"))
    with own_folder() as one, own_folder() as other:
        assert one != other
        assert one.parent == other.parent == tmp_path / "work"
    assert os.listdir(tmp_path / "work") == []


def test_a_part_is_read_back_and_a_damaged_one_refused() -> None:
    good = json.dumps({"schema_version": 1, "stages": {"joint": {"cmd": "x"}}}).encode()
    assert read_part(MemoryStore({"p": good}), "p") == {"joint": {"cmd": "x"}}
    for content in (b"{", b"[]", b'{"schema_version": 9, "stages": {}}'):
        with pytest.raises(ArtefactBroken, match="not a part of a lock"):
            read_part(MemoryStore({"p": content}), "p")


def test_the_remote_is_entered_beside_what_is_there(toy: Project) -> None:
    local = toy.root / ".dvc" / "config.local"
    local.write_text("['remote \"mine\"']\n    url = /elsewhere\n")
    dvc_remote.use_remote(toy, "s3://b/dvc", alone=False)
    text = local.read_text()
    assert "/elsewhere" in text
    assert "s3://b/dvc" in text
    assert dvc_remote.is_default(toy), "there was none"
    config = toy.root / ".dvc" / "config"
    config.write_text(config.read_text() + "    remote = mine\n")
    local.unlink()
    dvc_remote.use_remote(toy, "s3://b/dvc", alone=False)
    assert not dvc_remote.is_default(toy), "the project's own choice stays"
    dvc_remote.use_remote(toy, "s3://b/dvc", alone=True)
    assert dvc_remote.is_default(toy), "a worker has no choice"


def test_resume_states_outlive_a_worker_and_are_forgotten_once_done(tmp_path: Path) -> None:
    store = MemoryStore()
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(SystemExit), ScratchMirror(store, "scratch/anna", first):
        (first / "joint-0123").mkdir(parents=True)
        (first / "joint-0123" / "checkpoint").write_text("step 40")
        (first / "joint-0123" / ".half").write_text("half")
        (first / "frames").mkdir()
        (first / "frames" / "big.npy").write_text("decoded")
        raise SystemExit(143)
    assert list(store.objects) == ["scratch/anna/joint-0123/checkpoint"]
    with ScratchMirror(store, "scratch/anna", second) as mirror:
        assert (second / "joint-0123" / "checkpoint").read_text() == "step 40"
        mirror.copy()
        assert store.puts == 1, "nothing has changed"
        (second / "joint-0123" / "checkpoint").write_text("step 60!")
        mirror.copy()
        assert store.objects["scratch/anna/joint-0123/checkpoint"] == b"step 60!"
        (second / "late").write_text("late")
        mirror.discard()
    assert store.objects == {}


def test_resume_states_are_copied_while_a_stage_runs(tmp_path: Path) -> None:
    store = MemoryStore()
    with ScratchMirror(store, "scratch/anna", tmp_path, every_s=0.05) as mirror:
        (tmp_path / "state").write_text("x")
        mirror._thread.join(2)
        assert store.objects == {"scratch/anna/state": b"x"}
