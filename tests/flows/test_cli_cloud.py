"""`gensync cloud` without a cloud: what is asked for, what is said, what is refused before anything is submitted."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import cli
from flows.cli_cloud import name_videos
from flows.cloud import CloudResult, _without, cost_lines, scope_kept
from gensync_core.errors import UsageError
from gensync_core.paths import Project
from tasks.cloud_submission import CloudEntry, CloudJob, CloudSettings, Submission, load_all, one_orchestrator
from tasks.dvc_project import Node, Policy
from tasks.process import CommandFailed

Gensync = Callable[..., int]
Output = pytest.CaptureFixture[str]


def entry(
    scope: str, status: str = "SUCCEEDED", exit_code: int | None = 0, reason: str = "", seconds: float = 10.0
) -> CloudEntry:
    return CloudEntry(
        id=f"0-{scope}",
        scope=scope,
        stages=[f"coarse@{scope}"],
        part=f"parts/x/0-{scope}.json",
        status=status,
        exit_code=exit_code,
        reason=reason,
        seconds=10.0,
    )


def submission(*entries: CloudEntry, gpus: int = 0, closed: bool = True) -> Submission:
    job = CloudJob(
        name="gensync-x-0",
        title="coarse",
        manifest="s3://b/manifests/x.json",
        gpu=gpus > 0,
        vcpus=4,
        memory_mib=2048,
        gpus=gpus,
        attempt_s=100,
        needs=[(0, True)],
        entries=list(entries),
        job_id="1",
    )
    return Submission(
        digest="abcdef0123456789",
        settings=CloudSettings(store="s3://b/x"),
        serial=1,
        targets=[("coarse", None)],
        newcomers=["anna"],
        jobs=[job],
        closed=closed,
    )


@pytest.fixture
def gensync(monkeypatch: pytest.MonkeyPatch, toy: Project) -> Gensync:
    def run(*arguments: str) -> int:
        monkeypatch.chdir(toy.root)
        monkeypatch.delenv("GENSYNC_STORE", raising=False)
        monkeypatch.setattr(sys, "argv", ["gensync", "cloud", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def test_each_video_has_one_id() -> None:
    assert name_videos([Path("/x/Anna Lee.mp4")], None) == {"anna-lee": Path("/x/Anna Lee.mp4")}
    assert list(name_videos([Path("a.mp4"), Path("b.mp4")], ["anna", "bob"])) == ["anna", "bob"]
    for videos, ids in (([Path("a.mp4")], ["anna", "bob"]), ([Path("a.mp4"), Path("x/a.mov")], None)):
        with pytest.raises(UsageError, match="--speaker"):
            name_videos(videos, ids)


def test_wrong_use_is_said_before_anything_starts(gensync: Gensync, capsys: Output) -> None:
    assert gensync("run", "onboard", "x.mp4") == 2, "no store"
    assert gensync("run", "repro", "--store", "s3://b/x") == 2
    assert "nobody is onboarded yet" in capsys.readouterr().err
    assert gensync("run", "onboard", "a.mp4", "b.mp4", "--speaker", "anna", "--store", "s3://b/x") == 2


def test_the_state_of_submissions_is_shown(toy: Project, gensync: Gensync, capsys: Output) -> None:
    assert gensync("status") == 0
    assert "nothing was submitted" in capsys.readouterr().out
    submission(entry("anna"), entry("bob", "FAILED", 3), gpus=1).save(toy)
    assert gensync("status") == 0
    said = capsys.readouterr().out
    assert "abcdef012345  collected" in said
    assert "anna: 40 vCPU-s, 10 GPU-s" in said


def test_a_note_is_read_back_as_it_was_written(toy: Project) -> None:
    noted = submission(entry("anna"), entry("bob", "FAILED", 143, "Host EC2 terminated"))
    noted.save(toy)
    assert load_all(toy) == [noted]


@pytest.mark.parametrize(
    ("exit_code", "reason", "hopeless", "blocked"),
    [
        (3, "Essential container in task exited", True, False),
        (4, "", True, False),
        (2, "", True, False),
        (1, "", False, False),
        (143, "Host EC2 (instance i-0) terminated.", False, False),
        (137, "Job attempt duration exceeded timeout", True, False),
        (None, "Dependent Job failed", False, True),
        (None, "CannotPullContainerError", False, False),
    ],
)
def test_only_what_may_yet_succeed_is_submitted_again(
    exit_code: int | None, reason: str, hopeless: bool, blocked: bool
) -> None:
    failed = entry("anna", "FAILED", exit_code, reason)
    assert (failed.hopeless, failed.blocked) == (hopeless, blocked)
    assert failed.rejected == (exit_code == 3)
    assert not entry("anna").hopeless


def test_what_depends_on_something_hopeless_is_left_out() -> None:
    nodes = [
        Node(address="ingest@anna", deps=(), policy=Policy()),
        Node(address="ingest@bob", deps=(), policy=Policy()),
        Node(address="coarse@bob", deps=("ingest@bob",), policy=Policy()),
        Node(address="joint", deps=("ingest@anna", "coarse@bob"), policy=Policy()),
    ]
    assert [node.address for node in _without(nodes, {"ingest@bob"})] == ["ingest@anna"]
    assert scope_kept("coarse@anna", "anna", ["bob"])
    assert not scope_kept("coarse@bob", "bob", ["bob"])
    assert not scope_kept("evaluate@bob", None, ["bob"])


def test_a_project_has_one_orchestrator_at_a_time(toy: Project) -> None:
    with one_orchestrator(toy), pytest.raises(UsageError, match="another gensync cloud command"), one_orchestrator(toy):
        pass
    with one_orchestrator(toy):
        pass


def test_failures_keep_the_first_exit_code_and_all_reasons() -> None:
    CloudResult().raise_failures()
    result = CloudResult(failures=["anna: too short"], refused={"joint": "toy.py is not what it read"}, first_error=3)
    with pytest.raises(CommandFailed, match="too short; joint: not taken over") as caught:
        result.raise_failures()
    assert caught.value.exit_code == 3
    assert cost_lines({"bob": (1.4, 0.0), "anna": (12.6, 3.0)}) == ["anna: 13 vCPU-s, 3 GPU-s", "bob: 1 vCPU-s, 0 GPU-s"]
