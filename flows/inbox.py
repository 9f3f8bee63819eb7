"""Scheduled onboarding: a flow that scans the inbox, and one that makes one attempt with one file of it."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment as served_deployment
from prefect.states import Completed, Crashed

from flows.onboard_speaker import bring_up, register
from flows.task_runner import stage_runner
from gensync_core.errors import UsageError
from gensync_core.paths import Project
from tasks.inbox import Desk, InboxSettings, begin, died, look, make_attempt, release
from tasks.inbox_ledger import State as FileState
from tasks.inbox_ledger import Submission
from tasks.inbox_places import open_inbox
from tasks.process import stop_all_on_signal

# A run that its runner has taken up, but that did not come to its lock in this time, is not going to.
_START_S = 180.0
_SCAN_LOCK = "scan"


def open_desk(root: Path, inbox: str, settings: InboxSettings) -> Desk:
    """The inbox of a project.

    Raises:
        UsageError: the address is neither a folder's nor of S3.
    """
    return Desk(project=Project(root), inbox=open_inbox(inbox), settings=settings)


@flow(name="scan-inbox")
def scan_inbox(root: Path, inbox: str, settings: InboxSettings, onboard_deployment: str, key: str) -> State[Any]:
    """Look through an inbox once and start what is due; a second scan at the same time does nothing.

    Args:
        root: the project's folder.
        inbox: a folder or `s3://bucket/prefix`.
        settings: how patient to be.
        onboard_deployment: name of the deployment that makes an attempt, `flow/deployment`.
        key: the project's own start of idempotency keys, for several projects may share a server.

    Raises:
        UsageError: there is no such inbox.
        StoreFailed: the inbox cannot be listed.
    """
    desk = open_desk(root, inbox, settings)
    with desk.ledger.lock(_SCAN_LOCK) as mine:
        if not mine:
            return Completed(name="Skipped", message="another scan is at work")
        due = look(desk, _is_alive)
        for submission in due:
            _submit(desk, submission, onboard_deployment, key)
    present = list(desk.ledger.present(desk.inbox.address).values())
    if present:
        create_table_artifact(key="inbox", table=[_row(submission) for submission in present])
    return Completed(message=f"{len(due)} started, {len(present)} files in the inbox")


def _submit(desk: Desk, submission: Submission, deployment: str, key: str) -> None:
    """Claim an attempt and have the server run it; a key that the server knows already is an attempt that it had before."""
    claimed = begin(desk, submission)
    while claimed is not None:
        parameters = {
            "submission": claimed.id,
            "attempt": claimed.attempt,
            "speaker": claimed.speaker,
            "file": claimed.name,
        }
        try:
            run: Any = run_deployment(
                deployment,
                parameters=parameters,
                timeout=0,
                idempotency_key=f"{key}-{claimed.sha256}-{claimed.attempt}",
                as_subflow=False,
                flow_run_name=f"{claimed.speaker}, attempt {claimed.attempt}",
            )
        except Exception as error:
            release(desk, claimed, f"could not be handed to Prefect: {error}")
            raise
        if not (run.state and run.state.is_final()):
            desk.ledger.change(claimed, run=str(run.id))
            return
        claimed = desk.ledger.change(claimed, attempt=claimed.attempt + 1)


def _is_alive(submission: Submission) -> bool:
    """Whether the server is still going to make the attempt; if nobody is, the run is ended there, too."""
    if submission.run is None:
        return False
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(UUID(submission.run))
        except ObjectNotFound:
            return False
        if run.state is None or run.state.is_final():
            return False
        if run.state.type is StateType.SCHEDULED or _age_s(run) < _START_S:
            return True
        message = "the process that made the attempt is gone"
        client.set_flow_run_state(run.id, Crashed(message=message), force=True)
        return False


def _age_s(run: FlowRun) -> float:
    assert run.state is not None
    return (datetime.now(UTC) - run.state.timestamp) / timedelta(seconds=1)


def _row(submission: Submission) -> dict[str, Any]:
    return {
        "file": submission.name,
        "speaker": submission.speaker or "",
        "state": submission.state.value,
        "why": submission.reason,
        "since": datetime.fromtimestamp(submission.since, UTC).isoformat(timespec="seconds"),
    }


@flow(name="onboard-from-inbox", task_runner=stage_runner())
def onboard_from_inbox(
    root: Path, inbox: str, settings: InboxSettings, submission: int, attempt: int, speaker: str = "", file: str = ""
) -> State[Any]:
    """Make one attempt with one file: check, register, run the speaker's stages, put the file away.

    What was begun by an earlier attempt is gone on with. Rejected footage is no failure of the run.

    Args:
        root: the project's folder.
        inbox: a folder or `s3://bucket/prefix`.
        settings: how patient to be.
        submission: number of the file in the ledger.
        attempt: number of the attempt; one that is not the latest does nothing.
        speaker: for people.
        file: for people.

    Raises:
        GenSyncError: the attempt failed; the next scan makes another one.
    """
    desk = open_desk(root, inbox, settings)
    get_run_logger().info("%s for %s, attempt %d", file or f"submission {submission}", speaker or "a speaker", attempt)
    with stop_all_on_signal():
        now, error = make_attempt(desk, submission, attempt, lambda video, claimed: _onboard(desk.project, video, claimed))
    _say(f"{now.name}: {now.state.value}, {now.reason}")
    if error is not None:
        raise error
    if now.state not in (FileState.ONBOARDED, FileState.REJECTED):
        return Completed(name="Superseded", message=f"nothing to do: the file is {now.state.value}")
    return Completed(name=now.state.value.capitalize(), message=now.reason)


def _say(line: str) -> None:
    """One line for the console of `gensync serve`."""
    if served_deployment.id:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _onboard(project: Project, video: Path, submission: Submission) -> None:
    assert submission.speaker is not None
    known = project.registry().speakers.get(submission.speaker)
    if known is None or known.sha256 != submission.sha256:
        group: Any = submission.group
        known = register(project, video, submission.speaker, group, consent=submission.consent, sha256=submission.sha256)
    bring_up(project, known)


def scan_and_onboard(root: Path, inbox: str, settings: InboxSettings) -> list[str]:
    """Look through an inbox once and onboard here what is due, one after the other; returns the files that failed.

    Raises:
        UsageError: there is no such inbox, or another scan is at work on it.
        StoreFailed: the inbox cannot be listed.
    """
    desk = open_desk(root, inbox, settings)
    with desk.ledger.lock(_SCAN_LOCK) as mine:
        if not mine:
            raise UsageError(f"{inbox}: another scan is at work on it")
        due = look(desk, _is_alive)
    failed = []
    for submission in due:
        claimed = begin(desk, submission)
        if claimed is None:
            continue
        try:
            onboard_from_inbox(root, inbox, settings, claimed.id, claimed.attempt, claimed.speaker or "", claimed.name)
        except Exception as error:
            died(desk, claimed, str(error))
            failed.append(claimed.name)
    return failed
