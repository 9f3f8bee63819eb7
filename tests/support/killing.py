"""A flow in a process of its own whose processes can be found and killed one by one; Linux only (/proc)."""

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from gensync_core.paths import Project

FAILED_AS_IT_SHOULD = 75
KINDS = ("flow", "guard", "DVC", "stage", "group", "everything")


@dataclass(frozen=True)
class Found:
    """A process as it is now; `born` tells it from a later one of the same id."""

    pid: int
    parent: int
    born: str
    command: str


@dataclass(frozen=True)
class Tree:
    """A stage at work: its guard, DVC, the stage's own processes, and everything else that the guard started."""

    guard: Found
    dvc: Found | None
    stage: Found | None
    all: tuple[Found, ...]


def find(pid: int) -> Found | None:
    """The process of this id, unless it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # One whose first thread has ended is not gone before its others have: it still holds its locks.
        is_gone = fields[0] == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    return None if is_gone else Found(pid, int(fields[1]), fields[19], command)


def is_alive(process: Found) -> bool:
    now = find(process.pid)
    return now is not None and now.born == process.born


def all_processes() -> list[Found]:
    return [found for path in Path("/proc").glob("[0-9]*") if (found := find(int(path.name)))]


def working_in(project: Project) -> list[Found]:
    """Processes whose working directory is the project."""
    found = []
    for process in all_processes():
        try:
            if Path(f"/proc/{process.pid}/cwd").readlink() == project.root:
                found.append(process)
        except OSError:
            continue
    return found


def trees_of(flow_pid: int) -> list[Tree]:
    """The stages that a flow has at work."""
    processes = all_processes()

    def below(parent: Found) -> list[Found]:
        children = [process for process in processes if process.parent == parent.pid]
        return [one for child in children for one in (child, *below(child))]

    trees = []
    for guard in processes:
        if guard.parent == flow_pid and "process_guard.py" in guard.command:
            under = below(guard)
            # The guard's witness has the guard's command line.
            others = [process for process in under if "process_guard.py" not in process.command]
            dvc = next((process for process in others if process.parent == guard.pid), None)
            own = below(dvc) if dvc else []
            stage = next((process for process in own if process.command.startswith("python stage.py")), None)
            trees.append(Tree(guard, dvc, stage, (guard, *under)))
    return trees


def victims(kind: str, flow_pid: int, tree: Tree | None) -> list[int] | None:
    """Ids to be killed (negative: a process group), in this order; None where there is no such process now."""
    if kind == "flow":
        return [flow_pid]
    if tree is None:
        return None
    if kind == "guard":
        return [tree.guard.pid]
    if tree.dvc is None:
        return None
    if kind == "everything":
        return [flow_pid, tree.guard.pid, -tree.dvc.pid]
    if kind == "group":
        return [-tree.dvc.pid]
    chosen = tree.dvc if kind == "DVC" else tree.stage
    return [chosen.pid] if chosen else None


def kill(pids: list[int]) -> bool:
    """SIGKILL to all; whether the first of them was still there."""
    hit = []
    for pid in pids:
        try:
            os.killpg(-pid, signal.SIGKILL) if pid < 0 else os.kill(pid, signal.SIGKILL)
            hit.append(True)
        except ProcessLookupError:
            hit.append(False)
    return hit[0]


def run_flow(root: str, targets: list[str], log: str) -> None:
    """Body of a flow's process; what it says goes to `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(descriptor, number)
    from flows.pipeline import pipeline
    from tasks.process import CommandFailed

    try:
        pipeline(Path(root), targets)
    except CommandFailed as error:
        sys.stderr.write(f"flow: {error}\n")
        sys.stderr.flush()
        os._exit(FAILED_AS_IT_SHOULD)


class Flows:
    """Starts flows as children of one process that has imported Prefect already: a new one takes no seconds."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["flows.pipeline", "dvc.repo"])

    def start(self, project: Project, targets: list[str]) -> BaseProcess:
        process = self._context.Process(target=run_flow, args=(str(project.root), targets, str(self.log)), daemon=True)
        process.start()
        return process


def wait_until_gone(processes: list[Found], seconds: float) -> tuple[float, list[Found]]:
    """Seconds until none of them is left, and those that are left after all."""
    started = time.monotonic()
    while (left := [process for process in processes if is_alive(process)]) and time.monotonic() - started < seconds:
        time.sleep(0.02)
    return time.monotonic() - started, left
