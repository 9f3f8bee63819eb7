"""What each stage is doing, or how it ended: one small file a stage, for those who look without Prefect."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from gensync_core.artefacts import read_json, write_json
from gensync_core.errors import ArtefactBroken
from gensync_core.paths import Project

RUNNING = "running"
FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """The last word about a stage.

    Attributes:
        address: DVC's name of it, `ingest@alice`.
        state: `running`, `failed`, or how DVC satisfied it.
        since: seconds since the epoch.
        error: what went wrong.
        pid: the process that runs it.
    """

    address: str
    state: str
    since: float
    error: str = ""
    pid: int = 0

    @property
    def kind(self) -> str:
        """The stage without its speaker or job."""
        return self.address.partition("@")[0]

    @property
    def scope(self) -> str:
        """The speaker or job; empty for a stage of the whole project."""
        return self.address.partition("@")[2]

    def is_alive(self) -> bool:
        """Whether the stage is running, and so is the process that runs it."""
        if self.state != RUNNING:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def write_record(project: Project, address: str, state: str, error: str = "") -> None:
    """Note what a stage is doing; that it cannot be noted stops nobody."""
    record = StageRecord(address=address, state=state, since=time.time(), error=error, pid=os.getpid())
    try:
        write_json(_folder(project) / f"{address.replace('@', '-')}.json", asdict(record))
    except OSError:
        return


def read_records(project: Project) -> list[StageRecord]:
    """The last word about every stage that was run by a flow; what cannot be read is left out."""
    records = []
    for path in sorted(_folder(project).glob("[!.]*.json")):
        try:
            content = read_json(path)
            del content["schema_version"]
            records.append(StageRecord(**content))
        except (ArtefactBroken, TypeError):
            continue
    return records


def _folder(project: Project) -> Path:
    return project.root / ".gensync" / "stages"
