"""An inbox whose files say in their text what becomes of them, and scans of it without Prefect."""

from collections.abc import Callable
from pathlib import Path

from gensync_core.errors import GenSyncError
from gensync_core.speakers import Speaker
from tasks.footage import GateRejected
from tasks.inbox import Desk, InboxSettings, begin, look, make_attempt
from tasks.inbox_ledger import Submission

HASTY = InboxSettings(settle_s=0.0, max_attempts=2, backoff_s=0.0)


def folder_of(desk: Desk) -> Path:
    return Path(desk.inbox.address)


def put(desk: Desk, name: str, text: str, sidecar: str | None = None) -> Path:
    if sidecar is not None:
        (folder_of(desk) / f"{name}.yaml").write_text(sidecar)
    path = folder_of(desk) / name
    path.write_text(text)
    return path


def enlist(desk: Desk, submission: Submission) -> None:
    """What an onboarding leaves in the registry."""
    assert submission.speaker is not None
    assert submission.sha256 is not None
    with desk.ledger.lock("registry-of-the-test"):
        registry = desk.project.registry()
        registry.speakers[submission.speaker] = Speaker(
            id=submission.speaker, raw=f"data/raw/{submission.speaker}.mp4", sha256=submission.sha256, group="cohort"
        )
        registry.save(desk.project.speakers_file)


def taker(desk: Desk, onboarded: list[str]) -> Callable[[Path, Submission], None]:
    """Onboards like the real one, as the file's text says: `reject`, `stage rejects`, `fail`, anything else is fine."""

    def onboard(video: Path, submission: Submission) -> None:
        text = video.read_text()
        if text.startswith("reject"):
            raise GateRejected("no face in the footage", {"rejected": True, "findings": [{"code": "no_face"}]})
        if text.startswith("fail"):
            raise GenSyncError("the disk is full")
        if text.startswith("boom"):
            raise KeyboardInterrupt
        enlist(desk, submission)
        onboarded.append(str(submission.speaker))

    return onboard


def scan(desk: Desk, onboarded: list[str], now: float | None = None) -> None:
    """One scan, and the attempts that it asks for."""
    with desk.ledger.lock("scan") as mine:
        due = look(desk, lambda _: True, now=now) if mine else []
    for submission in due:
        if (claimed := begin(desk, submission)) is not None:
            make_attempt(desk, claimed.id, claimed.attempt, taker(desk, onboarded))


def states(desk: Desk) -> dict[str, str]:
    return {row.name: row.state.value for row in desk.ledger.latest()}


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
