"""The inbox: whose turn it is, exactly once, whatever fails; here without Prefect."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import made_up_inbox
import pytest
from made_up_inbox import HASTY, enlist, files_in, folder_of, put, scan, states, taker

from gensync_core.errors import FootageRejected
from tasks.inbox import Desk, begin, look, make_attempt, release_interrupted
from tasks.inbox_ledger import State, Submission


def reason(desk: Desk, name: str) -> str:
    return next(row.reason for row in desk.ledger.latest() if row.name == name)


@pytest.mark.fault("duplicate inbox file")
def test_four_files_of_which_two_are_the_same_are_three_onboardings_in_16_scans(desk: Desk, onboarded: list[str]) -> None:
    for name, text in (("anna.mp4", "A"), ("Bob Brown.MOV", "B"), ("carl.mp4", "C"), ("anna-again.mp4", "A")):
        put(desk, name, text)
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(scan, desk, onboarded) for _ in range(16)]:
            future.result()
    scan(desk, onboarded)
    assert sorted(onboarded) in (["anna", "bob-brown", "carl"], ["anna-again", "bob-brown", "carl"])
    assert set(states(desk).values()) == {"onboarded"}
    assert not [name for name in files_in(folder_of(desk)) if "/" not in name], "the inbox has emptied"
    notes = {
        name: json.loads((folder_of(desk) / name).read_text()) for name in files_in(folder_of(desk)) if name[-4:] == "json"
    }
    assert sum("from the same content before" in note["reason"] for note in notes.values()) == 1
    assert len(notes) == 4


SCANNER = """
import sys
from pathlib import Path
from gensync_core.paths import Project
from tasks.inbox import Desk, InboxSettings
from tasks.inbox_places import open_inbox
import made_up_inbox
desk = Desk(project=Project(Path(sys.argv[1])), inbox=open_inbox(sys.argv[2]), settings=made_up_inbox.HASTY)
onboarded = []
for _ in range(3):
    made_up_inbox.scan(desk, onboarded)
print(*onboarded)
"""


@pytest.mark.fault("duplicate inbox file")
def test_several_processes_onboard_each_file_once(desk: Desk, tmp_path: Path) -> None:
    for name in ("anna", "bob", "carl", "dora"):
        put(desk, f"{name}.mp4", name)
    command = [sys.executable, "-c", SCANNER, str(desk.project.root), desk.inbox.address]
    env = os.environ | {"PYTHONPATH": str(Path(made_up_inbox.__file__).parent)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env) for _ in range(3)]
    said = " ".join(process.communicate(timeout=120)[0] for process in running)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sorted(said.split()) == ["anna", "bob", "carl", "dora"]


@pytest.mark.fault("half-written inbox file")
def test_a_file_that_is_still_copied_waits(desk: Desk, onboarded: list[str]) -> None:
    desk = replace(desk, settings=replace(HASTY, settle_s=30.0))
    start = time.time()
    path = put(desk, "anna.mp4", "first half")
    put(desk, "bob.mp4.part", "B")
    put(desk, ".carl.mp4.Xy12", "C")
    scan(desk, onboarded, start)
    assert states(desk) == {"anna.mp4": "arriving", "bob.mp4.part": "arriving"}
    path.write_text("first half, second half")
    os.utime(path, (start + 29, start + 29))
    scan(desk, onboarded, start + 40)
    assert onboarded == []
    scan(desk, onboarded, start + 60)
    assert onboarded == ["anna"]
    assert states(desk)["bob.mp4.part"] == "arriving"
    (folder_of(desk) / "bob.mp4.part").rename(folder_of(desk) / "bob.mp4")
    scan(desk, onboarded, start + 70)
    scan(desk, onboarded, start + 101)
    assert onboarded == ["anna", "bob"]


def test_a_clock_that_runs_ahead_keeps_no_file_waiting(desk: Desk, onboarded: list[str]) -> None:
    desk = replace(desk, settings=replace(HASTY, settle_s=30.0))
    path, start = put(desk, "anna.mp4", "A"), time.time()
    os.utime(path, (start + 9000, start + 9000))
    scan(desk, onboarded, start)
    assert onboarded == []
    scan(desk, onboarded, start + 31)
    assert onboarded == ["anna"]


@pytest.mark.fault("half-written inbox file")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open")
def test_a_file_that_somebody_writes_waits_however_long_the_writer_pauses(desk: Desk, onboarded: list[str]) -> None:
    with (folder_of(desk) / "anna.mp4").open("w") as writer:
        writer.write("half")
        writer.flush()
        scan(desk, onboarded, time.time() + 3600)
        assert reason(desk, "anna.mp4") == "still being copied"
    scan(desk, onboarded, time.time() + 3600)
    assert onboarded == ["anna"]


@pytest.mark.fault("corrupt inbox file")
def test_rejected_footage_is_put_aside_with_its_report(desk: Desk, onboarded: list[str]) -> None:
    put(desk, "anna.mp4", "reject", sidecar="consent: letter of May 3\n")
    put(desk, "bob.mp4", "B")
    scan(desk, onboarded)
    assert onboarded == ["bob"]
    assert files_in(folder_of(desk)) == [
        "onboarded/bob.mp4", "onboarded/bob.mp4.json",
        "rejected/anna.mp4", "rejected/anna.mp4.json", "rejected/anna.mp4.yaml",
    ]  # fmt: skip
    note = json.loads((folder_of(desk) / "rejected" / "anna.mp4.json").read_text())
    assert (note["outcome"], note["reason"]) == ("rejected", "no face in the footage")
    assert note["gate"]["findings"] == [{"code": "no_face"}]
    # Put in once more it is judged once more, and both are kept.
    put(desk, "anna.mp4", "reject again")
    scan(desk, onboarded)
    assert len([name for name in files_in(folder_of(desk)) if name.startswith("rejected/anna")]) == 5


@pytest.mark.fault("failed run retried")
def test_a_failed_attempt_is_made_again_later_and_blocks_nobody(desk: Desk, onboarded: list[str]) -> None:
    desk = replace(desk, settings=replace(HASTY, max_attempts=3, backoff_s=60.0))
    path, start = put(desk, "anna.mp4", "fail"), time.time()
    put(desk, "bob.mp4", "B")
    scan(desk, onboarded, start)
    assert onboarded == ["bob"]
    row = desk.ledger.present(desk.inbox.address)["anna.mp4"]
    assert (row.state, row.tries, row.attempt) == (State.WAITING, 1, 1)
    assert "attempt 1 failed: the disk is full" in row.reason
    scan(desk, onboarded, start + 30)
    assert desk.ledger.get(row.id).attempt == 1, "not before its time"
    scan(desk, onboarded, start + 90)
    scan(desk, onboarded, start + 900)
    row = desk.ledger.get(row.id)
    assert (row.state, row.tries, row.attempt) == (State.FAILED, 3, 3)
    scan(desk, onboarded, start + 90_000)
    assert desk.ledger.get(row.id).attempt == 3, "given up"
    path.write_text("mended")
    scan(desk, onboarded, start + 90_000)
    assert onboarded == ["bob", "anna"]


@pytest.mark.fault("failed run retried")
def test_an_attempt_whose_process_is_gone_is_made_again(desk: Desk, onboarded: list[str]) -> None:
    put(desk, "anna.mp4", "A")
    (due,) = look(desk, lambda _: True)
    claimed = begin(desk, due)
    assert claimed is not None
    enlist(desk, claimed)  # it died after it had registered the speaker
    assert look(desk, lambda _: True) == [], "the server is still going to run it"
    assert desk.ledger.get(claimed.id).state is State.RUNNING
    with desk.ledger.lock(f"submission-{claimed.id}"):
        assert look(desk, lambda _: False) == [], "somebody is working on it"
    (again,) = look(desk, lambda _: False)
    assert (again.tries, "never came to work" in again.reason) == (0, True)
    claimed = begin(desk, again)
    assert claimed is not None
    desk.ledger.change(claimed, started=True)
    (again,) = look(desk, lambda _: False)
    assert (again.tries, "is gone" in again.reason) == (1, True)
    second = begin(desk, again)
    assert second is not None
    assert second.attempt == 3
    # The first one comes back from the dead: it has nothing to say any more.
    make_attempt(desk, claimed.id, 1, taker(desk, onboarded))
    assert onboarded == []
    make_attempt(desk, claimed.id, 3, taker(desk, onboarded))
    assert onboarded == ["anna"]


def test_an_interrupted_attempt_does_not_count(desk: Desk, onboarded: list[str]) -> None:
    put(desk, "anna.mp4", "boom")
    with pytest.raises(KeyboardInterrupt):
        scan(desk, onboarded)
    row = desk.ledger.present(desk.inbox.address)["anna.mp4"]
    assert (row.state, row.tries) == (State.WAITING, 0)


def test_attempts_that_are_ended_on_purpose_do_not_count(desk: Desk) -> None:
    for name in ("anna.mp4", "bob.mp4"):
        put(desk, name, name)
    anna, bob = (begin(desk, due) for due in look(desk, lambda _: True))
    assert anna is not None
    assert bob is not None
    desk.ledger.change(anna, started=True)
    release_interrupted(desk)
    row = desk.ledger.get(anna.id)
    assert (row.state, row.tries) == (State.WAITING, 0)
    assert desk.ledger.get(bob.id).state is State.RUNNING, "the server still has it in its queue"


def test_two_claims_of_one_submission_give_one_attempt(desk: Desk) -> None:
    put(desk, "anna.mp4", "A")
    (due,) = look(desk, lambda _: True)
    claims: list[Submission | None] = []
    threads = [threading.Thread(target=lambda: claims.append(begin(desk, due))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([claim for claim in claims if claim]) == 1


def test_two_files_for_one_speaker_wait_for_each_other(desk: Desk, onboarded: list[str]) -> None:
    put(desk, "anna.mp4", "reject")
    put(desk, "anna.mov", "good")
    put(desk, "anna.mkv", "other")
    scan(desk, onboarded)
    for _ in range(3):
        scan(desk, onboarded)
    assert onboarded == ["anna"]
    assert sorted(states(desk).values()) == ["onboarded", "rejected", "rejected"]


def test_who_was_onboarded_is_said_by_the_registry_and_not_by_the_ledger(desk: Desk, onboarded: list[str]) -> None:
    put(desk, "anna.mp4", "A")
    scan(desk, onboarded)
    desk.ledger.path.unlink()
    (folder_of(desk) / "onboarded" / "anna.mp4").rename(folder_of(desk) / "once-more.mp4")
    scan(desk, onboarded)
    assert onboarded == ["anna"]
    registry = desk.project.registry()
    del registry.speakers["anna"]
    registry.save(desk.project.speakers_file)
    (folder_of(desk) / "onboarded" / "once-more.mp4").rename(folder_of(desk) / "anna.mp4")
    scan(desk, onboarded)
    assert onboarded == ["anna", "anna"], "who was taken out may be taken in again"


def test_what_cannot_be_moved_is_not_onboarded_again(desk: Desk, onboarded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    put(desk, "anna.mp4", "A")
    with monkeypatch.context() as patch:
        patch.setattr(type(desk.inbox), "move", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
        scan(desk, onboarded)
        scan(desk, onboarded)
    assert (onboarded, states(desk)) == (["anna"], {"anna.mp4": "onboarded"})
    assert (folder_of(desk) / "anna.mp4").exists()
    scan(desk, onboarded)
    assert (onboarded, (folder_of(desk) / "anna.mp4").exists()) == (["anna"], False)


def test_files_that_go_away_or_are_replaced_are_forgotten(desk: Desk, onboarded: list[str]) -> None:
    desk = replace(desk, settings=replace(HASTY, backoff_s=600.0))
    put(desk, "anna.mp4", "fail")
    path = put(desk, "bob.mp4", "fail, too")
    scan(desk, onboarded)
    (folder_of(desk) / "anna.mp4").unlink()
    path.write_text("B")
    scan(desk, onboarded)
    assert onboarded == ["bob"]
    assert states(desk) == {"anna.mp4": "gone", "bob.mp4": "onboarded"}


def test_a_stage_that_rejects_is_a_rejection(desk: Desk) -> None:
    put(desk, "anna.mp4", "A")
    (due,) = look(desk, lambda _: True)
    claimed = begin(desk, due)
    assert claimed is not None

    def onboard(video: Path, submission: Submission) -> None:
        raise FootageRejected("ingest@anna: too short")

    now, error = make_attempt(desk, claimed.id, claimed.attempt, onboard)
    assert (now.state, error) == (State.REJECTED, None)
