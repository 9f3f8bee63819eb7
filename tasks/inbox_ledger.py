"""What became of each file of an inbox: a small SQLite file in the project, independent of Prefect.

Who is in the project is said by `speakers.yaml` alone. The ledger knows what is under way: files that are still being
copied, attempts, what went wrong. Deleted, it is made anew, and nobody is onboarded twice.
"""

import enum
import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from gensync_core.errors import ArtefactBroken
from gensync_core.paths import Project

_BUSY_S = 60.0


class State(enum.StrEnum):
    """Where a file is on its way; the last four are ends."""

    ARRIVING = "arriving"
    WAITING = "waiting"
    RUNNING = "running"
    ONBOARDED = "onboarded"
    REJECTED = "rejected"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One file that was put into an inbox. Times are seconds since the epoch.

    Attributes:
        id: its number in the ledger.
        inbox: the inbox's address.
        name: of the file.
        size: bytes.
        mark: changes when the file is written: time of modification and inode, or the ETag.
        unchanged_since: when this size and mark were first seen.
        first_seen: when the name was first seen.
        state: where it is on its way.
        since: when it came into that state.
        reason: why it is there; for people.
        sha256: digest of the content, once it is known.
        speaker: the id that it is for.
        group: `auto`, `cohort` or `adapted`.
        consent: reference to the consent record.
        attempt: number of the last attempt, counted over all files with this content.
        tries: attempts that failed.
        retry_at: not before.
        started: the attempt has come to work.
        run: id of the Prefect run that makes the attempt, where one does.
        report: JSON for the file's note: what the gate found.
        put_away: it has left the inbox.
    """

    id: int
    inbox: str
    name: str
    size: int
    mark: str
    unchanged_since: float
    first_seen: float
    state: State
    since: float
    reason: str = ""
    sha256: str | None = None
    speaker: str | None = None
    group: str = "auto"
    consent: str | None = None
    attempt: int = 0
    tries: int = 0
    retry_at: float = 0.0
    started: bool = False
    run: str | None = None
    report: str | None = None
    put_away: bool = False


_COLUMNS = [field.name for field in fields(Submission)]
_TABLE = f"""
create table if not exists submissions (
    id integer primary key,
    {", ".join(f'"{name}"' for name in _COLUMNS[1:])}
);
create index if not exists by_content on submissions (sha256);
create unique index if not exists one_file on submissions (inbox, name) where not put_away;
"""


class Ledger:
    """The ledger of a project; any number of threads and processes may use it at once."""

    def __init__(self, project: Project) -> None:
        self.folder = project.root / ".gensync" / "inbox"
        self.path = self.folder / "ledger.sqlite"

    def exists(self) -> bool:
        """Whether the project ever had an inbox."""
        return self.path.exists()

    def get(self, submission_id: int) -> Submission:
        """Read one submission.

        Raises:
            ArtefactBroken: the ledger has none of that number.
        """
        found = self._read("where id = ?", submission_id)
        if not found:
            raise ArtefactBroken(f"{self.path}: no submission {submission_id}; the next scan of the inbox makes a new one")
        return found[0]

    def present(self, inbox: str) -> dict[str, Submission]:
        """Submissions by name that have not left the inbox."""
        return {row.name: row for row in self._read("where inbox = ? and not put_away order by id", inbox)}

    def latest(self) -> list[Submission]:
        """Everything that is under way, and the last word about each name that is not."""
        return self._read("where not put_away or id in (select max(id) from submissions group by inbox, name) order by id")

    def of_content(self, sha256: str) -> list[Submission]:
        """All submissions of this content, oldest first."""
        return self._read("where sha256 = ? order by id", sha256)

    def next_attempt(self, sha256: str) -> int:
        """A number that no attempt with this content has had."""
        return 1 + max((row.attempt for row in self.of_content(sha256)), default=0)

    def add(self, *, inbox: str, name: str, size: int, mark: str, now: float) -> Submission:
        """Note a file that was not there before."""
        values = (inbox, name, size, mark, now, now, State.ARRIVING, now)
        with self._open() as database:
            row = database.execute(
                'insert into submissions (inbox, name, size, mark, unchanged_since, first_seen, state, since, reason, "group",'
                " attempt, tries, retry_at, started, put_away) values (?, ?, ?, ?, ?, ?, ?, ?, '', 'auto', 0, 0, 0.0, 0, 0)"
                " returning id",
                values,
            ).fetchone()
        return self.get(row[0])

    def change(self, submission: Submission, *, now: float | None = None, **changes: Any) -> Submission | None:
        """Change a submission if it still is in the state that the caller knows; returns it anew, else None."""
        if "state" in changes and changes["state"] != submission.state:
            changes["since"] = time.time() if now is None else now
        assignments = ", ".join(f'"{name}" = ?' for name in changes)
        with self._open() as database:
            done = database.execute(
                f"update submissions set {assignments} where id = ? and state = ? and attempt = ?",
                (*changes.values(), submission.id, submission.state, submission.attempt),
            )
        return self.get(submission.id) if done.rowcount else None

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Hold a lock for as long as this process lives at most; gives False at once where somebody else holds it."""
        path = self.folder / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _read(self, where: str, *values: object) -> list[Submission]:
        if not self.exists():
            return []
        columns = ", ".join(f'"{name}"' for name in _COLUMNS)
        with self._open() as database:
            rows = database.execute(f"select {columns} from submissions {where}", values).fetchall()
        made = (dict(zip(_COLUMNS, row, strict=True)) for row in rows)
        return [
            Submission(
                **row | {"state": State(row["state"]), "put_away": bool(row["put_away"]), "started": bool(row["started"])}
            )
            for row in made
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=_BUSY_S)
        try:
            with database:
                database.executescript(_TABLE)
                yield database
        except sqlite3.DatabaseError as error:
            raise ArtefactBroken(
                f"{self.path}: cannot be used ({error}); if it is damaged, delete it: the next scan makes a new one"
            ) from error
        finally:
            database.close()
