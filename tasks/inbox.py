"""An inbox: every file that is put into it is onboarded exactly once, however often and by how many it is scanned.

`look` brings the ledger up to date and says whose turn it is; `begin` claims one of them; `make_attempt` onboards it and
puts the file away. Nothing here knows Prefect.

Source: own choice; the truth about who was onboarded is the sha256 in `speakers.yaml`.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gensync_core.artefacts import SCHEMA_VERSION
from gensync_core.errors import FootageRejected, GenSyncError
from gensync_core.paths import Project
from tasks.footage import GateRejected
from tasks.inbox_ledger import Ledger, State, Submission
from tasks.inbox_names import Arrival, arrivals_of, identity_of, is_unfinished_name
from tasks.inbox_places import Inbox
from tasks.process import is_stopping

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 3600.0
_LONGEST_REASON = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxSettings:
    """How patient an inbox is.

    Attributes:
        settle_s: a file counts when it has not changed for so many seconds.
        max_attempts: failed attempts after which a file is left alone.
        backoff_s: seconds before the second attempt; doubled for each further one, an hour at most.
    """

    settle_s: float = 30.0
    max_attempts: int = 3
    backoff_s: float = 60.0

    def __post_init__(self) -> None:
        if self.settle_s < 0 or self.backoff_s < 0 or self.max_attempts < 1:
            raise ValueError(f"settle_s and backoff_s must not be negative, max_attempts at least 1: {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """One project's inbox, with what is needed to work on it."""

    project: Project
    inbox: Inbox
    settings: InboxSettings

    @property
    def ledger(self) -> Ledger:
        """The project's ledger."""
        return Ledger(self.project)

    def scratch(self, submission: Submission) -> Path:
        """Where the file is copied to if the inbox is on no disk of this machine."""
        return self.ledger.folder / "fetched" / f"{submission.id}{PurePosixPath(submission.name).suffix.lower()}"


def look(desk: Desk, is_alive: Callable[[Submission], bool], *, now: float | None = None) -> list[Submission]:
    """Bring the ledger up to date with the inbox; to be called by one scan at a time.

    Args:
        desk: the inbox.
        is_alive: whether somebody else is still going to make the attempt that a submission is in.
        now: seconds since the epoch.

    Returns:
        Submissions whose turn it is, oldest first.

    Raises:
        UsageError: there is no such inbox.
        StoreFailed: the inbox cannot be listed.
    """
    now = time.time() if now is None else now
    ledger = desk.ledger
    arrivals = {arrival.name: arrival for arrival in arrivals_of(desk.inbox)}
    for submission in ledger.present(desk.inbox.address).values():
        _catch_up(desk, submission, arrivals.get(submission.name), is_alive, now)
    present = ledger.present(desk.inbox.address)
    for arrival in arrivals.values():
        submission = present.get(arrival.name) or ledger.add(
            inbox=desk.inbox.address, name=arrival.name, size=arrival.size, mark=arrival.mark, now=now
        )
        if submission.state is State.ARRIVING:
            _settle(desk, submission, arrival, now)
    present = ledger.present(desk.inbox.address)
    waiting = [submission for submission in present.values() if submission.state is State.WAITING]
    return [submission for submission in waiting if _has_its_turn(desk, submission, present, now)]


def begin(desk: Desk, submission: Submission) -> Submission | None:
    """Claim the next attempt; None where somebody else was faster."""
    assert submission.sha256 is not None
    attempt = desk.ledger.next_attempt(submission.sha256)
    return desk.ledger.change(
        submission, state=State.RUNNING, attempt=attempt, run=None, started=False, reason=f"attempt {attempt} is about to start"
    )


def make_attempt(
    desk: Desk, submission_id: int, attempt: int, onboard: Callable[[Path, Submission], None]
) -> tuple[Submission, BaseException | None]:
    """Make an attempt that was begun, and put the file away if it came to an end.

    Args:
        desk: the inbox.
        submission_id: whose attempt.
        attempt: its number; one that is no longer the latest does nothing.
        onboard: gets the file on this machine.

    Returns:
        The submission as it is now, and what went wrong, if the attempt failed.
    """
    ledger = desk.ledger
    with ledger.lock(f"submission-{submission_id}") as mine:
        submission = ledger.get(submission_id)
        if not mine or submission.state is not State.RUNNING or submission.attempt != attempt:
            return submission, None
        ledger.change(submission, started=True, reason=f"attempt {attempt}")
        try:
            onboard(_fetched(desk, submission), submission)
        except FootageRejected as error:
            gate = error.report if isinstance(error, GateRejected) else None
            return _end(desk, submission, State.REJECTED, str(error), gate), None
        except GenSyncError as error:
            if error.exit_code == FootageRejected.exit_code:
                return _end(desk, submission, State.REJECTED, str(error)), None
            return _fail(desk, submission, str(error)), error
        except Exception as error:
            return _fail(desk, submission, f"{type(error).__name__}: {error}"), error
        except BaseException:
            _interrupted(ledger, submission)
            raise
        return _end(desk, submission, State.ONBOARDED, f"as speaker {submission.speaker}"), None


def died(desk: Desk, submission: Submission, why: str) -> None:
    """Note that an attempt failed without being able to say so itself; one that did is left as it is."""
    _fail(desk, submission, why)


def release(desk: Desk, submission: Submission, why: str) -> None:
    """Give a claim back: the attempt could not be started, and does not count."""
    desk.ledger.change(submission, state=State.WAITING, reason=why[:_LONGEST_REASON], run=None)


def release_interrupted(desk: Desk) -> None:
    """Give back attempts whose processes were ended on purpose, together with the process that served them."""
    for submission in desk.ledger.present(desk.inbox.address).values():
        with desk.ledger.lock(f"submission-{submission.id}") as nobody_works:
            if nobody_works and submission.state is State.RUNNING and submission.started:
                _interrupted(desk.ledger, submission)


def _catch_up(
    desk: Desk, submission: Submission, arrival: Arrival | None, is_alive: Callable[[Submission], bool], now: float
) -> None:
    """What has to be said about a submission that the ledger knows, before files are looked at."""
    ledger = desk.ledger
    if submission.state is State.RUNNING:
        with ledger.lock(f"submission-{submission.id}") as nobody_works:
            if not nobody_works or ledger.get(submission.id) != submission or is_alive(submission):
                return
            if submission.started:
                _fail(desk, submission, "the process that made the attempt is gone", now=now)
            else:
                release(desk, submission, f"attempt {submission.attempt} never came to work")
    elif submission.state in (State.ONBOARDED, State.REJECTED):
        put_away(desk, submission)
    elif arrival is None:
        ledger.change(submission, state=State.GONE, put_away=True, reason="was taken out of the inbox", now=now)
    elif submission.mark != arrival.mark and submission.state is State.ARRIVING:
        ledger.change(submission, size=arrival.size, mark=arrival.mark, unchanged_since=now)
    elif submission.mark != arrival.mark:
        ledger.change(submission, state=State.GONE, put_away=True, reason="was written anew", now=now)
        desk.scratch(submission).unlink(missing_ok=True)


def _settle(desk: Desk, submission: Submission, arrival: Arrival, now: float) -> None:
    """Take a file in whose content is not changing any more: digest, id, group."""
    ledger = desk.ledger
    last_change = min(submission.unchanged_since, max(arrival.modified, 0.0)) if arrival.mark == submission.mark else now
    if is_unfinished_name(arrival.name):
        ledger.change(submission, reason="its name says that it is still being copied")
        return
    if arrival.being_written or now - last_change < desk.settings.settle_s:
        ledger.change(submission, reason="still being copied")
        return
    try:
        _, sha256 = desk.inbox.fetch(arrival.name, desk.scratch(submission))
        identity = identity_of(desk.inbox, arrival)
    except FootageRejected as error:
        _end(desk, submission, State.REJECTED, str(error))
        return
    except (GenSyncError, OSError) as error:
        log.warning("%s: cannot be read: %s", arrival.name, error)
        ledger.change(submission, reason=f"cannot be read: {error}"[:_LONGEST_REASON])
        return
    ledger.change(
        submission,
        state=State.WAITING,
        reason="next in turn",
        sha256=sha256,
        speaker=identity.speaker,
        group=identity.group,
        consent=identity.consent,
        now=now,
    )


def _has_its_turn(desk: Desk, submission: Submission, present: dict[str, Submission], now: float) -> bool:
    """Whether an attempt may be begun; else the ledger says why not."""
    ledger = desk.ledger
    assert submission.sha256 is not None
    same = [other for other in ledger.of_content(submission.sha256) if other.id != submission.id]
    registry = desk.project.registry()
    before = [
        other
        for other in [*same, *present.values()]
        if submission.sha256 == other.sha256 or submission.speaker == other.speaker
        if other.state is State.RUNNING or (other.state is State.WAITING and other.id < submission.id)
    ]
    if before:
        what = "with the same content" if before[0].sha256 == submission.sha256 else f"for speaker {submission.speaker}"
        ledger.change(submission, reason=f"{before[0].name}, a file {what}, goes first")
        return False
    owner = next((speaker for speaker in registry.speakers.values() if speaker.sha256 == submission.sha256), None)
    if owner is not None:
        attempted = max(
            (other for other in [*same, submission] if other.attempt), key=lambda other: other.attempt, default=None
        )
        if attempted is None or attempted.state is State.ONBOARDED:
            _end(desk, submission, State.ONBOARDED, f"speaker {owner.id} was onboarded from the same content before")
            return False
        if owner.id != submission.speaker:
            ledger.change(submission, speaker=owner.id)
    elif submission.speaker in registry.speakers:
        taken = registry.speakers[submission.speaker]
        reason = (
            f"speaker id {taken.id!r} belongs to other footage ({taken.raw}); choose another one by the file's name, "
            f"or by `id:` in {submission.name}.yaml beside it"
        )
        _end(desk, submission, State.REJECTED, reason)
        return False
    return submission.retry_at <= now


def _fetched(desk: Desk, submission: Submission) -> Path:
    path, sha256 = desk.inbox.fetch(submission.name, desk.scratch(submission))
    if sha256 != submission.sha256:
        desk.scratch(submission).unlink(missing_ok=True)
        raise GenSyncError(f"{submission.name}: was written anew after it had been taken in")
    return path


def _fail(desk: Desk, submission: Submission, why: str, *, now: float | None = None) -> Submission:
    """The attempt failed: there is another one, or none if it was the last."""
    if is_stopping():
        return _interrupted(desk.ledger, submission)
    now = time.time() if now is None else now
    settings, tries, why = desk.settings, submission.tries + 1, why[:_LONGEST_REASON]
    if tries >= settings.max_attempts:
        reason = f"{why} (after {tries} attempts; touch the file to have it tried again)"
        changed = desk.ledger.change(submission, state=State.FAILED, tries=tries, reason=reason, run=None, now=now)
    else:
        pause_s = min(settings.backoff_s * 2 ** (tries - 1), _LONGEST_PAUSE_S)
        reason = f"attempt {submission.attempt} failed: {why}"
        changed = desk.ledger.change(
            submission, state=State.WAITING, tries=tries, retry_at=now + pause_s, reason=reason, run=None, now=now
        )
    return changed or desk.ledger.get(submission.id)


def _interrupted(ledger: Ledger, submission: Submission) -> Submission:
    changed = ledger.change(submission, state=State.WAITING, reason="interrupted, goes on with the next scan", run=None)
    return changed or ledger.get(submission.id)


def _end(desk: Desk, submission: Submission, state: State, reason: str, gate: dict[str, Any] | None = None) -> Submission:
    report = json.dumps(gate) if gate is not None else None
    ended = desk.ledger.change(submission, state=state, reason=reason, report=report, run=None)
    if ended is None:
        return desk.ledger.get(submission.id)
    put_away(desk, ended)
    return desk.ledger.get(submission.id)


def put_away(desk: Desk, submission: Submission) -> None:
    """Move a file that came to its end to `onboarded/` or `rejected/`, its sidecar with it and a note beside it.

    What cannot be moved stays, is said, and tried again by the next scan; it is not onboarded again.
    """
    inbox, folder = desk.inbox, submission.state.value
    name = PurePosixPath(submission.name)
    try:
        target = f"{folder}/{name}"
        if inbox.exists(target):
            target = f"{folder}/{name.stem}-{(submission.sha256 or submission.mark)[:8]}{name.suffix}"
        if inbox.exists(submission.name):
            inbox.write(_note(submission), f"{target}.json")
            sidecar = next((found.sidecar for found in arrivals_of(inbox) if found.name == submission.name), None)
            if sidecar is not None:
                inbox.move(sidecar, f"{target}.yaml")
            inbox.move(submission.name, target)
    except (OSError, GenSyncError) as error:
        log.warning("%s: is %s, but cannot be moved: %s", submission.name, folder, error)
        return
    desk.ledger.change(submission, put_away=True)
    desk.scratch(submission).unlink(missing_ok=True)


def _note(submission: Submission) -> bytes:
    note = {
        "schema_version": SCHEMA_VERSION,
        "file": submission.name,
        "sha256": submission.sha256,
        "speaker": submission.speaker,
        "outcome": submission.state.value,
        "reason": submission.reason,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(submission.since)),
        "attempt": submission.attempt,
        "gate": json.loads(submission.report) if submission.report else None,
    }
    return (json.dumps(note, indent=2) + "\n").encode()
