"""What a command and everything that it starts costs: wall and CPU seconds, and memory held at once."""

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of a tree of processes; `peak_mb` is the most that was resident at a moment, shared pages counted in each process."""

    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A command that ended well, and the last line that it printed."""

    cost: Cost
    last_line: str


def cpu_seconds() -> float:
    """User and system seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def cost_of_tree(command: list[str], cwd: Path, env: Mapping[str, str]) -> Done:
    """Run a command to its end.

    Raises:
        SystemExit: it failed; with the end of its output.
    """
    start, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=cwd, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, resident_bytes_of_tree(process.pid))
            time.sleep(_LOOK_EVERY_S)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        lines = output.read().splitlines()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n" + "\n".join(lines[-20:]))
    cost = Cost(wall_s=wall, cpu_s=usage.ru_utime + usage.ru_stime, peak_mb=peak / 1e6)
    return Done(cost=cost, last_line=lines[-1] if lines else "")


def resident_bytes_of_tree(pid: int) -> int:
    """What a process and those below it hold now; 0 if it is gone."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total
