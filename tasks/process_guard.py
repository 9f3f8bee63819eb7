"""Stands between us and a command so that nothing of it outlives us; run as a script, imports the standard library only.

`python -I -S process_guard.py PARENT_PID GRACE_S COMMAND...` starts the command in a process group of its own and ends
that whole group (SIGTERM, `GRACE_S` seconds later SIGKILL) when it is told to by SIGTERM, when the process that started it
dies in any way (on Linux), or when the command itself ends and leaves children behind. DVC alone would leave its stage running.
A witness, forked before the command, ends the group when the guard itself is killed.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


def main(parent_pid: int, grace_s: float, command: list[str]) -> int:
    """Run the command to its end; returns its exit code, or 128 + signal as shells do."""
    stop_asked = False

    def ask_stop(_signal: int, _frame: object) -> None:
        nonlocal stop_asked
        stop_asked = True

    signal.signal(signal.SIGTERM, ask_stop)
    signal.signal(signal.SIGINT, ask_stop)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        return 128 + signal.SIGTERM

    guard = os.getpid()
    witness, to_witness = _start_witness()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(128 + signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"{command[0]}: {error}\n".encode())
            os._exit(127)
    _tell(to_witness, str(child))

    status = _wait(child, lambda: stop_asked)
    if status is None:
        _signal_group(child, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while _group_lives(child) and time.monotonic() < deadline:
            _reap()
            time.sleep(_POLL_S)
        status = 128 + signal.SIGTERM
    _signal_group(child, signal.SIGKILL)
    _dismiss_witness(witness, to_witness)
    return status


def _start_witness() -> tuple[int, int]:
    """Fork a process that ends the group it is told of when we are gone; its id, and the pipe through which it is told."""
    told, tell = os.pipe()
    witness = os.fork()
    if witness:
        os.close(told)
        return witness, tell
    try:
        _witness(told, tell)
    finally:
        os._exit(0)


def _witness(told: int, tell: int) -> None:
    os.close(tell)
    # In a group of its own, deaf to what the guard is told, and without the output that somebody reads to its end.
    os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    heard = b""
    while part := os.read(told, 64):
        heard += part
    words = heard.split()
    if len(words) == 1:
        _signal_group(int(words[0]), signal.SIGKILL)


def _tell(witness: int, word: str) -> None:
    """One that was killed is no loss as long as we are here."""
    try:
        os.write(witness, f"{word}\n".encode())
    except BrokenPipeError:
        pass


def _dismiss_witness(witness: int, to_witness: int) -> None:
    """Nothing is left to be ended: let the witness go, and wait for it."""
    _tell(to_witness, "done")
    os.close(to_witness)
    try:
        os.waitpid(witness, 0)
    except ChildProcessError:
        pass


def _wait(child: int, stopped: Callable[[], bool]) -> int | None:
    """The child's exit code, or None as soon as `stopped()`."""
    while not stopped():
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            time.sleep(_POLL_S)
    return None


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
