"""Runs one command to its end: output line by line, a deadline, and no process left behind whatever happens."""

import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from gensync_core.errors import GenSyncError

_GUARD = Path(__file__).with_name("process_guard.py")
# The form in which the core says what a person can act on: `error[EXIT_CODE]: MESSAGE`.
ERROR_LINE = re.compile(r"^error\[(\d+)\]: (.*)$")
# Usage, rejected, broken: another attempt would end the same way.
_FINAL_CODES = (2, 3, 4)
# How DVC says that a stage was ended by a signal.
_KILLED_LINE = re.compile(r"exited with -(\d+)$")
_TAIL_LINES = 40
_GRACE_S = 20.0

_live: set["subprocess.Popen[str]"] = set()
_stopping = threading.Event()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        exit_code: as a shell reports it (128 + signal when killed).
        tail: last lines of output, stderr included.
        error: exit code and message of the last `error[CODE]: MESSAGE` line, in which a stage says what a person can act on.
        seconds: wall time.
        overtime: the deadline passed and the command was ended.
        interrupted: `stop_all` ended it.
    """

    exit_code: int
    tail: tuple[str, ...]
    error: tuple[int, str] | None
    seconds: float
    overtime: bool
    interrupted: bool


def run_command(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    deadline_s: float | None = None,
    on_line: Callable[[str], None] | None = None,
    log_file: Path | None = None,
    grace_s: float = _GRACE_S,
) -> Outcome:
    """Run a command and wait for it.

    Args:
        command: program and arguments, no shell.
        cwd: working directory.
        env: variables on top of ours.
        deadline_s: after so many seconds the whole process group is ended.
        on_line: called with every line of output (stdout and stderr as they come).
        log_file: gets the whole output; replaced at the start.
        grace_s: seconds between SIGTERM and SIGKILL, enough for a trainer to save its state.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        guarded(command, grace_s),
        cwd=cwd,
        env=command_env(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    _live.add(process)
    overtime = threading.Event()

    def end_late() -> None:
        overtime.set()
        _terminate(process)

    timer = threading.Timer(deadline_s, end_late) if deadline_s else None
    if timer:
        timer.daemon = True
        timer.start()
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    error: tuple[int, str] | None = None
    try:
        for line in _lines(process, log_file):
            tail.append(line)
            if match := ERROR_LINE.match(line):
                error = int(match[1]), match[2]
            if on_line is not None:
                on_line(line)
        exit_code = process.wait()
    except BaseException:
        _terminate(process)
        process.wait(grace_s + 10)
        raise
    finally:
        if timer:
            timer.cancel()
        _live.discard(process)
    return Outcome(
        exit_code=exit_code if exit_code >= 0 else 128 - exit_code,
        tail=tuple(tail),
        error=error,
        seconds=time.monotonic() - started,
        overtime=overtime.is_set() and exit_code != 0,
        interrupted=_stopping.is_set() and exit_code != 0,
    )


def guarded(command: Sequence[str], grace_s: float = _GRACE_S) -> list[str]:
    """The command under a guard that ends it and all that it started when it gets SIGTERM or this process dies."""
    return [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), str(grace_s), *command]


def command_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment for a child: this Python's `python`, `dvc` first on PATH, unbuffered output, no look-ups outside."""
    scripts = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    return {
        **os.environ,
        "PATH": path if path.split(os.pathsep)[0] == scripts else scripts + os.pathsep + path,
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        **(extra or {}),
    }


def stop_all() -> None:
    """End every running command, and let none be retried in this process."""
    _stopping.set()
    for process in list(_live):
        _terminate(process)


def is_stopping() -> bool:
    """Whether `stop_all` was called in this process: what fails now was interrupted."""
    return _stopping.is_set()


@contextmanager
def stop_all_on_signal() -> Iterator[None]:
    """While open, SIGINT and SIGTERM end every running command before they do what they did; main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        stop_all()
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def raise_for(outcome: Outcome, what: str, log_file: Path | None = None) -> None:
    """Turn a failed command into an error with one clear line.

    Raises:
        CommandFailed: the command did not exit with 0.
    """
    if outcome.exit_code == 0:
        return
    where = f"; full output in {log_file}" if log_file else ""
    if outcome.interrupted:
        raise CommandFailed(what, "interrupted", retryable=False)
    if outcome.overtime:
        raise CommandFailed(what, f"ended after {outcome.seconds:.0f} s, its deadline{where}", retryable=False)
    if outcome.error is not None:
        code, message = outcome.error
        raise CommandFailed(what, message, exit_code=code, retryable=code not in _FINAL_CODES)
    killed = next((int(match[1]) for line in reversed(outcome.tail) if (match := _KILLED_LINE.search(line))), None)
    if killed is None and outcome.exit_code == 128 + signal.SIGKILL:
        killed = int(signal.SIGKILL)
    if killed is not None:
        hint = " (often: out of memory)" if killed == signal.SIGKILL else ""
        raise CommandFailed(what, f"killed by signal {killed}{hint}{where}")
    last = next((line for line in reversed(outcome.tail) if line.strip() and not line.startswith("ERROR: failed to repro")), "")
    raise CommandFailed(what, f"failed: {last.strip() or f'exit code {outcome.exit_code}'}{where}")


class CommandFailed(GenSyncError):
    """A command (mostly a stage) failed; carries the exit code that the stage chose.

    Attributes:
        what: the stage's address or the command's name.
        retryable: another attempt may succeed; not so for rejected footage, broken artefacts, a passed deadline.
    """

    def __init__(self, what: str, message: str, *, exit_code: int = 1, retryable: bool = True) -> None:
        super().__init__(f"{what}: {message}")
        self.what, self.message, self.exit_code, self.retryable = what, message, exit_code, retryable

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels between the processes of a cluster."""
        again = functools.partial(CommandFailed, exit_code=self.exit_code, retryable=self.retryable)
        return again, (self.what, self.message)


def _terminate(process: "subprocess.Popen[str]") -> None:
    """Ask the guard to end its group; it answers within the grace period."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)


def _lines(process: "subprocess.Popen[str]", log_file: Path | None) -> Iterator[str]:
    assert process.stdout is not None
    if log_file is None:
        for line in process.stdout:
            yield line.rstrip()
        return
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("w") as log:
        for line in process.stdout:
            log.write(line)
            log.flush()
            yield line.rstrip()
