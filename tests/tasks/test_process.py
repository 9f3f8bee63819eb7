"""The process runner: output, deadline, and nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.process import CommandFailed, raise_for, run_command

Command = Callable[[str], list[str]]
ROOT = Path(__file__).resolve().parents[2]
# A child and a grandchild that ignore SIGTERM, writing their ids down.
STUBBORN_TREE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code])
open("pids.tmp", "w").write(f"{os.getpid()} {child.pid}")
os.rename("pids.tmp", "pids")
print("ready", flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def pids_in(folder: Path) -> list[int]:
    assert wait_until((folder / "pids").exists, 10)
    return [int(word) for word in (folder / "pids").read_text().split()]


def test_lines_come_as_they_are_written_and_into_the_log(tmp_path: Path, python_command: Command) -> None:
    lines: list[str] = []
    code = "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)"
    outcome = run_command(python_command(code), cwd=tmp_path, on_line=lines.append, log_file=tmp_path / "logs" / "x.log")
    assert (outcome.exit_code, lines) == (0, ["out", "err"])
    assert (tmp_path / "logs" / "x.log").read_text() == "out\nerr\n"


@pytest.mark.parametrize(("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_the_commands(code: str, expected: int, tmp_path: Path, python_command: Command) -> None:
    assert run_command(python_command(code), cwd=tmp_path).exit_code == expected


def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    outcome = run_command(["no-such-program"], cwd=tmp_path)
    assert outcome.exit_code == 127
    with pytest.raises(CommandFailed, match="no-such-program"):
        raise_for(outcome, "x")


def test_the_error_line_carries_message_and_exit_code(tmp_path: Path, python_command: Command) -> None:
    code = "print('error[3]: no face at 2.0 s'); print('ERROR: failed to reproduce'); raise SystemExit(255)"
    with pytest.raises(CommandFailed, match=r"^ingest@a: no face at 2.0 s$") as caught:
        raise_for(run_command(python_command(code), cwd=tmp_path), "ingest@a")
    assert (caught.value.exit_code, caught.value.retryable) == (3, False)


def test_a_crash_names_its_last_line_and_may_be_retried(tmp_path: Path, python_command: Command) -> None:
    with pytest.raises(CommandFailed, match="ValueError: boom") as caught:
        raise_for(run_command(python_command("raise ValueError('boom')"), cwd=tmp_path), "x")
    assert (caught.value.exit_code, caught.value.retryable) == (1, True)


@pytest.mark.fault("deadline passed")
def test_the_deadline_ends_the_whole_tree_on_time(tmp_path: Path, python_command: Command) -> None:
    outcome = run_command(python_command(STUBBORN_TREE), cwd=tmp_path, deadline_s=4, grace_s=0.5)
    assert outcome.overtime
    assert outcome.seconds < 20, "the tree would sleep for a minute"
    assert wait_until(lambda: not any(alive(pid) for pid in pids_in(tmp_path)), 2)
    with pytest.raises(CommandFailed, match="deadline") as caught:
        raise_for(outcome, "x")
    assert not caught.value.retryable


def test_what_handles_the_signal_gets_the_grace_period(tmp_path: Path, python_command: Command) -> None:
    code = """
import signal, sys, time
def save(*_):
    time.sleep(0.3); open("saved", "w").close(); sys.exit(0)
signal.signal(signal.SIGTERM, save)
time.sleep(60)
"""
    assert run_command(python_command(code), cwd=tmp_path, deadline_s=1.0, grace_s=5).exit_code == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists()


def test_children_that_the_command_leaves_behind_are_ended(tmp_path: Path, python_command: Command) -> None:
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)
open("pids", "w").write(str(child.pid))
"""
    assert run_command(python_command(code), cwd=tmp_path).exit_code == 0
    assert wait_until(lambda: not any(alive(pid) for pid in pids_in(tmp_path)), 2)


@pytest.mark.fault("kill -9 of the flow")
@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is Linux's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_process_that_ran_it(number: signal.Signals, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tasks.process import run_command, stop_all_on_signal
with stop_all_on_signal():
    run_command([{sys.executable!r}, "-c", {STUBBORN_TREE!r}], cwd=Path({str(tmp_path)!r}), grace_s=0.5)
"""
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    pids = pids_in(tmp_path)
    assert all(alive(pid) for pid in pids)
    runner.send_signal(number)
    assert runner.wait(10) != 0
    assert wait_until(lambda: not any(alive(pid) for pid in pids), 5)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is Linux's")
@pytest.mark.fault("kill -9 of the guard")
def test_nothing_outlives_its_guard(tmp_path: Path) -> None:
    """DVC in place of `nest` is between the guard and what it runs."""
    nest = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STUBBORN_TREE!r}])"
    killed: list[float] = []

    def kill_the_guard(line: str) -> None:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        (guard,) = (int(pid) for pid in children if b"process_guard.py" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(guard, signal.SIGKILL)
        killed.append(time.monotonic())

    outcome = run_command([sys.executable, "-c", nest], cwd=tmp_path, on_line=kill_the_guard)
    assert time.monotonic() - killed[0] < 5, "the tree would sleep for a minute"
    assert wait_until(lambda: not any(alive(pid) for pid in pids_in(tmp_path)), 2)
    with pytest.raises(CommandFailed, match=r"killed by signal 9 \(often: out of memory\)") as caught:
        raise_for(outcome, "x")
    assert caught.value.retryable


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_guard_does_without_its_witness(tmp_path: Path, python_command: Command) -> None:
    def kill_the_witness(line: str) -> None:
        guard, command = (int(word) for word in line.split())
        children = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
        (witness,) = (int(child) for child in children if int(child) != command)
        os.kill(witness, signal.SIGKILL)

    code = "import os, time; print(os.getppid(), os.getpid(), flush=True); time.sleep(0.3); raise SystemExit(7)"
    assert run_command(python_command(code), cwd=tmp_path, on_line=kill_the_witness).exit_code == 7


def test_commands_run_side_by_side_do_not_disturb_each_other(tmp_path: Path, python_command: Command) -> None:
    codes: dict[int, int] = {}
    threads = [
        threading.Thread(
            target=lambda n=n: codes.update({n: run_command(python_command(f"raise SystemExit({n})"), cwd=tmp_path).exit_code})
        )
        for n in range(1, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {n: n for n in range(1, 5)}


def test_a_child_finds_the_python_that_runs_us(tmp_path: Path) -> None:
    lines: list[str] = []
    run_command(["python", "-c", "import sys; print(sys.prefix)"], cwd=tmp_path, on_line=lines.append)
    assert lines == [sys.prefix]
    assert os.environ.get("DVC_NO_ANALYTICS") is None, "our own environment stays as it is"
