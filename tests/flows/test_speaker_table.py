"""`gensync speakers`: who is waiting, in which stage, ready, rejected and why, since when."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import cli
from flows.speaker_table import all_rows
from gensync_core.artefacts import write_json
from gensync_core.paths import Project
from tasks.inbox import Desk, InboxSettings, begin, look
from tasks.inbox_ledger import State
from tasks.inbox_places import open_inbox
from tasks.stage_record import FAILED, RUNNING, read_records, write_record

Enlist = Callable[..., None]


@pytest.fixture
def desk(toy: Project) -> Desk:
    (toy.root / "inbox").mkdir()
    settings = InboxSettings(settle_s=0.0, max_attempts=1, backoff_s=0.0)
    return Desk(project=toy, inbox=open_inbox(str(toy.root / "inbox")), settings=settings)


def states(project: Project) -> dict[str, str]:
    return {row.id: row.state for row in all_rows(project)}


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_stages_that_run_fail_or_lost_their_process(toy: Project, enlist: Enlist, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("anna", "bob", "carl", "dora"):
        enlist(name)
    enlist("radio", group="adapted")
    before = time.time()
    write_record(toy, "ingest@anna", "executed")
    write_record(toy, "coarse@anna", RUNNING)
    write_record(toy, "ingest@bob", FAILED, "ingest@bob: disk full")
    write_record(toy, "ingest@dora", FAILED, "ingest@dora: disk full")
    write_record(toy, "ingest@dora", "executed")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", ended_pid)
        write_record(toy, "ingest@carl", RUNNING)
    assert states(toy) == {
        "anna": "running coarse",
        "bob": "failed ingest@bob: disk full",
        "carl": "stopped in ingest",
        "dora": "registered",
        "radio": "registered",
    }
    assert {row.id: row.since is not None and before <= row.since <= time.time() for row in all_rows(toy)}["anna"]
    write_record(toy, "coarse@anna", "executed")
    write_record(toy, "joint", RUNNING)
    assert (states(toy)["dora"], states(toy)["radio"]) == ("running joint", "registered"), "joint is the cohort's"


def test_a_failure_that_was_overcome_is_not_shown(toy: Project, enlist: Enlist) -> None:
    enlist("anna")
    write_record(toy, "ingest@anna", FAILED, "ingest@anna: disk full")
    clip = toy.speaker(toy.registry().get("anna")).clip_json
    write_json(clip, {"duration_s": 20.0})
    os.utime(clip, (time.time() + 5, time.time() + 5))
    assert states(toy) == {"anna": "ingested"}


def test_a_record_that_cannot_be_read_is_left_out(toy: Project) -> None:
    write_record(toy, "ingest@anna", "executed")
    (toy.root / ".gensync" / "stages" / "broken.json").write_text("{")
    assert [record.address for record in read_records(toy)] == ["ingest@anna"]


def test_files_on_the_way_are_shown_with_the_reason(
    desk: Desk, enlist: Enlist, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = desk.project
    enlist("taken", "other footage")
    for name in ("anna.mp4", "bob.mp4", "taken.mp4", "carl.mp4.part"):
        (toy.root / "inbox" / name).write_text(name)
    due = {submission.name: submission for submission in look(desk, lambda _: True)}
    claimed = begin(desk, due["anna.mp4"])
    assert claimed is not None
    shown = {row.file: row.state for row in all_rows(toy)}
    assert shown.pop("taken.mp4").startswith("rejected: speaker id 'taken' belongs to other footage")
    assert shown == {
        None: "registered",
        "anna.mp4": "onboarding: attempt 1 is about to start",
        "bob.mp4": "waiting: next in turn",
        "carl.mp4.part": "waiting: its name says that it is still being copied",
    }
    # Registered, and the stage that runs says more than the ledger; then the attempt fails.
    enlist("anna", "anna.mp4")
    write_record(toy, "ingest@anna", RUNNING)
    assert states(toy)["anna"] == "running ingest"
    desk.ledger.change(claimed, state=State.FAILED, reason="no space left")
    assert states(toy)["anna"] == "failed: no space left"

    monkeypatch.setattr(sys, "argv", ["gensync", "--project", str(toy.root), "speakers", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    printed = {(row["id"], row["file"]): row for row in json.loads(capsys.readouterr().out)}
    assert printed["bob", "bob.mp4"]["since"] == pytest.approx(time.time(), abs=60)
    monkeypatch.setattr(sys, "argv", ["gensync", "--project", str(toy.root), "inbox", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    assert {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)} == {
        "anna.mp4": "failed", "bob.mp4": "waiting", "carl.mp4.part": "arriving", "taken.mp4": "rejected",
    }  # fmt: skip


def test_the_inbox_that_is_named_has_to_be_there(toy: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for arguments in (["inbox", "--once", "--inbox", str(tmp_path / "none")], ["serve", "--inbox", str(tmp_path / "none")]):
        monkeypatch.setattr(sys, "argv", ["gensync", "--project", str(toy.root), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
