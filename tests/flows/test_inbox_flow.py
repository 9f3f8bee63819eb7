"""Scheduled onboarding through Prefect: what a scan starts, what becomes of it, what is shown."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed, Pending

from gensync_core.paths import Project
from gensync_core.progress import Tick
from tasks import limits, progress_artifact
from tasks.inbox import InboxSettings
from tasks.inbox_ledger import Ledger, State
from tasks.process import CommandFailed, run_command

pytestmark = pytest.mark.usefixtures("prefect_server")
Footage = Callable[..., Path]
Enlist = Callable[..., None]
Executed = Callable[[Project], list[str]]
HASTY = InboxSettings(settle_s=0.0, max_attempts=3, backoff_s=0.0)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def states(project: Project) -> dict[str, State]:
    return {row.name: row.state for row in Ledger(project).latest()}


def test_without_a_server_a_scan_onboards_rejects_and_tries_again(
    toy: Project, inbox: Path, executed: Executed, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.inbox import scan_and_onboard
    from flows.speaker_table import all_rows

    for name, text in (("anna", "A"), ("bob", "reject check"), ("carl", "crash coarse")):
        (inbox / f"{name}.mp4").write_text(text)
    assert scan_and_onboard(toy.root, str(inbox), HASTY) == ["carl.mp4"]
    assert states(toy) == {"anna.mp4": State.ONBOARDED, "bob.mp4": State.REJECTED, "carl.mp4": State.WAITING}
    note = json.loads((inbox / "rejected" / "bob.mp4.json").read_text())
    assert (note["reason"], note["gate"]["rejected"]) == (f"{inbox}/bob.mp4: no face in the footage", True)
    rows = {row.id: row.state for row in all_rows(toy)}
    assert rows["anna"] == "registered"  # the toy's stages write none of the files that a state is read from
    assert rows["bob"].startswith("rejected: ")
    assert rows["carl"].startswith("waiting: attempt 1 failed: coarse@carl: ")
    before = executed(toy)
    (toy.root / "mended").touch()
    assert scan_and_onboard(toy.root, str(inbox), HASTY) == []
    assert executed(toy)[len(before) :] == ["coarse@carl"], "what was done is not done again"
    assert [path.name for path in inbox.iterdir() if path.is_file()] == []


def test_scans_start_each_attempt_once_and_a_lost_one_again(toy: Project, inbox: Path) -> None:
    from flows.deployments import ServeSettings, deployments_of
    from flows.inbox import onboard_from_inbox, scan_inbox

    settings = ServeSettings(root=toy.root, inbox=str(inbox), patience=HASTY)
    deployments = {deployment.flow_name: deployment for deployment in deployments_of(settings)}
    onboard = deployments["onboard-from-inbox"].apply()
    (inbox / "anna.mp4").write_text("A")

    def scan() -> None:
        scan_inbox(toy.root, str(inbox), HASTY, f"onboard-from-inbox/{settings.name}", settings.name)

    def runs() -> list[Any]:
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs()
        return sorted((run for run in found if run.deployment_id == onboard), key=lambda run: run.name)

    for _ in range(2):
        scan()
    (first,) = runs()
    assert (first.name, first.parameters["attempt"], first.parameters["file"]) == ("anna, attempt 1", 1, "anna.mp4")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(first.id, Pending(), force=True)
        scan()
        assert len(runs()) == 1, "it has been taken up just now"
        client.set_flow_run_state(first.id, Crashed(), force=True)
    scan()
    scan()
    assert [run.name for run in runs()] == ["anna, attempt 1", "anna, attempt 2"]
    # An empty ledger begins at 1 again, which the server knows already: a number that it does not know is taken.
    Ledger(toy).path.unlink()
    with get_client(sync_client=True) as client:
        for run in runs():
            client.set_flow_run_state(run.id, Crashed(), force=True)
    scan()
    assert [run.name for run in runs()][-1] == "anna, attempt 3"
    row = Ledger(toy).latest()[0]
    for attempt in (1, 3):
        onboard_from_inbox(toy.root, str(inbox), HASTY, row.id, attempt)
    assert states(toy) == {"anna.mp4": State.ONBOARDED}
    assert toy.registry().ids() == ["anna"]


def test_a_scan_beside_another_one_does_nothing(toy: Project, inbox: Path) -> None:
    from flows.inbox import scan_inbox

    (inbox / "anna.mp4").write_text("A")
    with Ledger(toy).lock("scan"):
        state = scan_inbox(toy.root, str(inbox), HASTY, "onboard-from-inbox/nobody", "key", return_state=True)
    assert (state.name, Ledger(toy).latest()) == ("Skipped", [])
    failed = scan_inbox(toy.root, str(inbox), HASTY, "onboard-from-inbox/nobody", "key", return_state=True)
    assert failed.is_failed(), "there is no such deployment"
    (row,) = Ledger(toy).latest()
    assert (row.state, row.tries) == (State.WAITING, 0)
    assert "could not be handed to Prefect" in row.reason


def test_a_flow_leaves_a_table_and_a_page_for_each_report(toy: Project, enlist: Enlist) -> None:
    from flows.pipeline import pipeline

    enlist("nora")
    enlist("olaf", "crash coarse")
    with pytest.raises(CommandFailed):
        pipeline(toy.root, ["evaluate@nora", "coarse@olaf"])
    with get_client(sync_client=True) as client:
        shown = {
            key: client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
            for key in ("stages", "report-nora")
        }
    latest = max(shown["stages"], key=lambda artifact: str(artifact.created))  # other tests' flows leave tables, too
    rows = json.loads(str(latest.data))
    results = {(row["speaker"], row["stage"]): row["result"] for row in rows}
    assert results["nora", "ingest"] == "executed"
    assert results["olaf", "coarse"].startswith("failed: ")
    assert results["all", "joint"] == "not run"
    assert shown["report-nora"] == []
    (toy.root / "mended").touch()
    pipeline(toy.root, ["evaluate@nora"])
    with get_client(sync_client=True) as client:
        (page,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["report-nora"])))
    assert (toy.root / "reports" / "nora" / "report.html").as_uri() in str(page.data)


def test_progress_is_shown_at_most_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_artifact, "INTERVAL_S", 0.3)

    @flow
    def watch() -> None:
        import logging

        shown = progress_artifact.ProgressArtifact("joint@a_b", logging.getLogger(__name__))
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            shown.ticked(Tick("joint", 50, 200, 30.0, "loss 0.1"))
        shown.ended()

    calls: list[str] = []
    update = progress_artifact.update_progress_artifact
    monkeypatch.setattr(
        progress_artifact, "update_progress_artifact", lambda *args, **named: (calls.append("x"), update(*args, **named))
    )
    watch()
    with get_client(sync_client=True) as client:
        (bar,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["progress-joint-a-b"])))
    assert (bar.type, float(str(bar.data))) == ("progress", 100.0)
    assert 1 <= len(calls) <= 4


def test_a_server_that_does_not_answer_costs_the_bar_and_not_the_stage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    def away(*args: object, **named: object) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(progress_artifact, "INTERVAL_S", 0.0)
    monkeypatch.setattr(progress_artifact, "create_progress_artifact", away)
    shown = progress_artifact.ProgressArtifact("joint", logging.getLogger(__name__))
    for _ in range(3):
        shown.ticked(Tick("joint", 1, 2, None))
    shown.ended()
    assert caplog.text.count("not shown any more") == 1


def test_gpu_stages_share_the_gpus_and_writers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    limits._make_limits.cache_clear()
    monkeypatch.setattr(limits, "num_gpus", lambda: 1)
    inside, most = 0, {"gpu": 0, "writer": 0}

    def work(what: str) -> None:
        nonlocal inside
        with limits.gpu_slots(2) if what == "gpu" else limits.writing():
            inside += 1
            most[what] = max(most[what], inside)
            time.sleep(0.2)
            inside -= 1

    for what in most:
        threads = [threading.Thread(target=work, args=(what,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == {"gpu": 1, "writer": 1}
    with get_client(sync_client=True) as client:
        sizes = {name: client.read_global_concurrency_limit_by_name(name).limit for name in (limits.GPU, limits.WRITER)}
    assert sizes == {"gensync-gpu": 1, "dvc-writer": 1}


def test_processes_may_make_the_limits_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limits._make_limits("first")
    monkeypatch.setattr(
        SyncPrefectClient, "read_global_concurrency_limit_by_name", lambda *_: (_ for _ in ()).throw(ObjectNotFound(OSError()))
    )
    limits._make_limits("second, which looked before the first had made them")


def test_no_gpu_is_waited_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "_NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert limits.num_gpus() == 0
    monkeypatch.setattr(limits, "_make_limits", lambda _: pytest.fail("the server was asked"))
    with limits.gpu_slots(1):
        pass
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert limits.num_gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert limits.num_gpus() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert limits.num_gpus() == 0


def test_what_a_killed_process_left_is_settled_at_the_next_start(toy: Project, inbox: Path) -> None:
    from flows.deployments import ServeSettings, clean_up, deployments_of

    deployments = deployments_of(ServeSettings(root=toy.root, inbox=str(inbox)))
    clean_up(deployments)  # of a project that was never served
    ids = {deployment.flow_name: deployment.apply() for deployment in deployments}
    asked = {"submission": 1, "attempt": 1}
    with get_client(sync_client=True) as client:
        running = client.create_flow_run_from_deployment(ids["onboard-from-inbox"], parameters=asked, state=Pending())
        queued = client.create_flow_run_from_deployment(ids["onboard-from-inbox"], parameters=asked)
        clean_up(deployments)
        assert client.read_flow_run(running.id).state_name == "Crashed"
        assert client.read_flow_run(queued.id).state_name == "Scheduled"
        limits._make_limits("another server")
        client.update_global_concurrency_limit(limits.WRITER, limits.LimitUpdate(active_slots=1))
        limits.free_all_slots(str(PREFECT_API_URL.value()))
        assert client.read_global_concurrency_limit_by_name(limits.WRITER).active_slots == 0


def test_retraining_an_empty_cohort_is_no_failure(toy: Project) -> None:
    from flows.deployments import retrain_cohort

    state = retrain_cohort(toy.root, return_state=True)
    assert (state.is_completed(), state.message) == (True, "nobody is in the cohort yet")


def test_retraining_brings_everybody_up_to_date_and_nobody_stops_the_others(
    toy: Project, enlist: Callable[..., None], executed: Callable[[Project], list[str]]
) -> None:
    from flows.deployments import retrain_cohort

    enlist("alice", "A")
    for name, text in {"bob": "crash coarse", "carl": "C"}.items():
        enlist(name, text, "adapted")
    assert retrain_cohort(toy.root, return_state=True).is_failed()
    assert set(executed(toy)) >= {"joint@cohort", "evaluate@alice", "evaluate@carl"}
    (toy.root / "mended").touch()
    assert retrain_cohort(toy.root, return_state=True).message == "2 stages run"
    assert executed(toy)[-1] == "evaluate@bob"
    assert retrain_cohort(toy.root, return_state=True).message == "everything is up to date"
    assert run_command(["dvc", "status", "--quiet"], cwd=toy.root).exit_code == 0, "plain DVC agrees"


def test_settings_travel_between_processes(toy: Project) -> None:
    from flows.deployments import ServeSettings

    settings = ServeSettings(root=toy.root, inbox="s3://a/b", retrain_cron="", patience=replace(HASTY, settle_s=7.5))
    assert ServeSettings.loads(settings.dumps()) == settings
    assert settings.name != replace(settings, root=toy.root.parent / "other" / toy.root.name).name
