"""One Prefect task that runs one DVC stage of one speaker: the only place where Prefect meets DVC."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from gensync_core.paths import Project
from gensync_core.progress import Tick, parse_line
from tasks import dvc_project
from tasks.dvc_project import How, Node
from tasks.limits import gpu_slots
from tasks.process import CommandFailed
from tasks.progress_artifact import ProgressArtifact
from tasks.stage_record import FAILED, RUNNING, write_record


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """A stage that ended well: how DVC satisfied it, and the wall time of the attempt that did."""

    address: str
    how: How
    seconds: float


class StageWatcher(Protocol):
    """Who shows the user what stages are doing; called from the threads that run them."""

    def started(self, address: str) -> None:
        """An attempt begins."""

    def ticked(self, address: str, tick: Tick) -> None:
        """The stage reports progress."""

    def ended(self, address: str, how: str, seconds: float) -> None:
        """The attempt is over; `how` is DVC's word or `failed`."""


_watcher: StageWatcher | None = None


def use_watcher(watcher: StageWatcher | None) -> None:
    """Choose who is told, for the whole process."""
    global _watcher
    _watcher = watcher


def _worth_retrying(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Rejected footage, a broken artefact, a passed deadline or the user's Ctrl-C will not get better by another attempt."""
    try:
        state.result(raise_on_failure=True)
    except CommandFailed as error:
        return error.retryable
    except Exception:
        return False
    return False


@task(
    name="stage",
    task_run_name="{node.address}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=_worth_retrying,
)
def run_stage(root: Path, node: Node) -> StageResult:
    """Let DVC bring one stage up to date.

    Raises:
        CommandFailed: with the exit code and message that the stage gave.
    """
    logger, project = get_run_logger(), Project(root)
    shown = ProgressArtifact(node.address, logger)
    with gpu_slots(node.policy.gpu):
        started = time.monotonic()
        _tell(lambda watcher: watcher.started(node.address))
        write_record(project, node.address, RUNNING)

        def on_line(line: str) -> None:
            tick = parse_line(line)
            if tick is not None:
                _tell(lambda watcher: watcher.ticked(node.address, tick))
                shown.ticked(tick)
            elif line:
                logger.info(line)

        try:
            how = dvc_project.reproduce(project, node, on_line=on_line)
        except BaseException as error:
            write_record(project, node.address, FAILED, str(error) or type(error).__name__)
            _tell(lambda watcher: watcher.ended(node.address, "failed", time.monotonic() - started))
            raise
        seconds = time.monotonic() - started
        write_record(project, node.address, how)
        _tell(lambda watcher: watcher.ended(node.address, how, seconds))
    shown.ended()
    return StageResult(address=node.address, how=how, seconds=seconds)


def _tell(call: Callable[[StageWatcher], None]) -> None:
    if _watcher is not None:
        call(_watcher)
