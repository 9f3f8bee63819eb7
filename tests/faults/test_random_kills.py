"""SIGKILL at random moments to the flow, the guard, DVC, the stage, or all of it: nothing is lost, nothing is left running.

One project goes on from kill to kill. Whenever it is done, everything in it is compared with what has to be there, and one
parameter is changed, so that every stage has to run again.
"""

import fcntl
import os
import random
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from fault_table import FaultLog
from killing import FAILED_AS_IT_SHOULD, KINDS, Flows, Tree, find, kill, trees_of, victims, wait_until_gone, working_in
from lock_check import damaged_objects, outs_missing, wrong_entries
from prefect.settings import PREFECT_API_URL
from slow_project import LINES, TARGETS, expected_outs, make_slow_project, set_gain

from tasks.dvc_project import read_lock
from tasks.process import run_command
from tasks.stage_record import FAILED, RUNNING, read_records

SEED = int(os.environ.get("GENSYNC_KILL_SEED", "20"))
KILLS = int(os.environ.get("GENSYNC_KILLS", "102"))
SPEAKERS = ("anna", "bob", "carl")
GONE_S = 10.0
RUN_S = 180.0
FAULT_OF = {
    "flow": "kill -9 of the flow",
    "guard": "kill -9 of the guard",
    "DVC": "kill -9 of DVC",
    "stage": "kill -9 of a stage",
    "group": "kill -9 of the process group",
    "everything": "kill -9 of the process group",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.fault(
        "kill -9 of the flow",
        "kill -9 of the guard",
        "kill -9 of DVC",
        "kill -9 of a stage",
        "kill -9 of the process group",
    ),
]


@dataclass
class Kill:
    """One of them: what was hit, what was at work then, what went wrong after it, and when that work went on."""

    kind: str
    at: float
    at_work: set[str]
    gone_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    recovered_s: float | None = None

    def __str__(self) -> str:
        recovered = f", goes on after {self.recovered_s:.1f} s" if self.recovered_s is not None else ""
        wrong = f": {'; '.join(self.wrong)}" if self.wrong else ""
        return f"{self.kind} at {', '.join(sorted(self.at_work)) or 'no stage'}, gone in {self.gone_s:.2f} s{recovered}{wrong}"


class Ordeal:
    """A project that is run and killed."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.project, self.rng = make_slow_project(folder / "project", SPEAKERS), rng
        self.flows = Flows(folder / "flow.log")
        self.kills: list[Kill] = []
        self.rounds = 0
        self.begun = time.time()
        # Of this round: how often each stage that has ended well had been started by then.
        self.done: dict[str, int] = {}
        self.runs_before: Counter[str] = Counter()

    def go(self, kills: int) -> None:
        for so_many in (kills // 3, 2 * kills // 3, kills):
            while len(self.kills) < so_many:
                self.run_once(so_many)
            self.run_once(so_many)  # to its end, undisturbed

    def run_once(self, kills: int) -> None:
        """One flow, killed at several moments or not at all."""
        flow = self.flows.start(self.project, TARGETS)
        try:
            self.watch(flow, kills)
        finally:
            flow.kill()  # where we gave up

    def watch(self, flow: BaseProcess, kills: int) -> None:
        """See a flow through to its end."""
        assert flow.pid is not None
        ends, hits = time.monotonic() + RUN_S, 0
        next_kill = time.monotonic() + self.rng.uniform(0.2, 3.0)
        while flow.is_alive():
            self.note_what_is_done()
            assert time.monotonic() < ends, f"a run does not end: {working_in(self.project)}\n{self.told()}"
            if len(self.kills) < kills and time.monotonic() > next_kill:
                hits += self.hit(flow.pid)
                next_kill = time.monotonic() + self.rng.uniform(0.1, 3.0)
            time.sleep(0.05)
        flow.join()
        self.note_what_is_done()
        if flow.exitcode == 0:
            self.end_round()
        elif not hits or flow.exitcode not in (-9, FAILED_AS_IT_SHOULD):
            self.blame(f"the flow ended with {flow.exitcode} after {hits} kills: {self.told()[-1500:]}")

    def hit(self, flow_pid: int) -> bool:
        """Kill something; returns whether it was there."""
        trees = trees_of(flow_pid)
        tree = self.rng.choice(trees) if trees else None
        so_far = Counter(kill.kind for kill in self.kills)
        possible = {kind: pids for kind in KINDS if (pids := victims(kind, flow_pid, tree))}
        if set(possible) == {"flow"} and so_far["flow"] > min(so_far[kind] for kind in KINDS):
            return False
        kind = min(possible, key=lambda kind: (so_far[kind], self.rng.random()))
        whole_flow = kind in ("flow", "everything")
        hit_trees: list[Tree] = trees if whole_flow else [tree] if tree else []
        at_work = {address for one in hit_trees if (address := address_of(one))}
        flow, at = find(flow_pid), time.time()
        if not kill(possible[kind]):
            return False
        one = Kill(kind, at, at_work)
        self.kills.append(one)
        hit = [*(process for tree in hit_trees for process in tree.all), *([flow] if whole_flow and flow else [])]
        one.gone_s, left = wait_until_gone(hit, GONE_S)
        one.wrong += [f"still running: {process.command}" for process in left]
        if whole_flow:
            # A stage that the flow was just about to start was in no tree yet.
            seconds, late = wait_until_gone(working_in(self.project), GONE_S)
            one.gone_s += seconds
            one.wrong += [f"left behind: {process.command}" for process in late]
            one.wrong += self.locks_taken()
        one.wrong += self.damage()
        return True

    def damage(self) -> list[str]:
        """What must never be, at whatever moment one looks."""
        found = [f"damaged in the cache: {path}" for path in damaged_objects(self.project, at_work=True)]
        try:
            lock = read_lock(self.project)
        except Exception as error:
            return [*found, f"dvc.lock: {error}"]
        missing = {address for address in self.done if address not in lock}
        found += [f"no entry in dvc.lock any more: {address}" for address in sorted(missing)]
        found += outs_missing(self.project, {address: lock[address] for address in self.done if address in lock})
        for path in expected_outs(self.project):
            file = self.project.root / path
            # Of an earlier round it may be, but whole. Empty it is while DVC tries to link it to its cache.
            text = read_if_there(file)
            if text and (len(set(text.split())) != 1 or len(text) != LINES * 65):
                found.append(f"half-written: {path}")
        return found

    def locks_taken(self) -> list[str]:
        taken = []
        for name in ("lock", "rwlock.lock"):
            path = self.project.root / ".dvc" / "tmp" / name
            if path.exists():
                with path.open("r+") as file:
                    for _ in range(50):
                        try:
                            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                            break
                        except OSError:
                            time.sleep(0.1)
                    else:
                        taken.append(f"DVC's {name} is still taken")
        return taken

    def note_what_is_done(self) -> None:
        """Which stages have ended well in this round, and after which kills the work that was hit goes on again."""
        records = {record.address: record for record in read_records(self.project)}
        good = {a for a, r in records.items() if r.state not in (RUNNING, FAILED) and r.since > self.begun}
        runs = self.runs() - self.runs_before
        for address in good - self.done.keys():
            self.done[address] = runs[address]
        for one in self.kills:
            if one.recovered_s is None:
                again = {address: r.since for address, r in records.items() if r.state != FAILED and r.since > one.at}
                if again and one.at_work <= again.keys():
                    one.recovered_s = max(again[a] for a in one.at_work or again) - one.at

    def end_round(self) -> None:
        """The project is as if nobody had disturbed it; then something is changed for the next round."""
        wanted = expected_outs(self.project)
        wrong = [
            f"not what it should be: {path}" for path, text in wanted.items() if read_if_there(self.project.root / path) != text
        ]
        wrong += wrong_entries(self.project) + self.damage()
        wrong += [f"damaged in the cache: {path}" for path in damaged_objects(self.project)] + self.locks_taken()
        if len(read_lock(self.project)) != len(wanted):
            wrong.append(f"dvc.lock has {sorted(read_lock(self.project))}")
        now = self.runs() - self.runs_before
        wrong += [f"done, and run again: {a}" for a, count in self.done.items() if now[a] != count]
        if left := working_in(self.project):
            wrong.append(f"left behind: {left}")
        for problem in wrong:
            self.blame(problem)
        # Some were hit so late that DVC had noted their result already, and nothing was left to be done again.
        for one in self.kills:
            if one.recovered_s is None:
                one.recovered_s = time.time() - one.at
        self.rounds += 1
        set_gain(self.project, self.rounds)
        self.begun, self.done, self.runs_before = time.time(), {}, self.runs()

    def blame(self, problem: str) -> None:
        """Hold it against the last kill."""
        if not self.kills:
            raise AssertionError(problem)
        self.kills[-1].wrong.append(problem)

    def runs(self) -> Counter[str]:
        return Counter((read_if_there(self.project.root / "runs.log") or "").split())

    def told(self) -> str:
        return read_if_there(self.flows.log) or ""


def address_of(tree: Tree) -> str | None:
    """The stage that a guard runs, as its command line says."""
    words = tree.guard.command.split()
    return words[-1] if words else None


def read_if_there(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def test_kills_at_random_moments_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_log: FaultLog, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    ordeal = Ordeal(tmp_path, random.Random(SEED))
    started = time.monotonic()
    try:
        ordeal.go(KILLS)
    finally:
        with capsys.disabled():
            sys.stdout.write(f"\nseed {SEED}: {len(ordeal.kills)} kills in {time.monotonic() - started:.0f} s\n")
            sys.stdout.write("".join(f"{number:4d} {one}\n" for number, one in enumerate(ordeal.kills)))
        for fault in sorted(set(FAULT_OF.values())):
            hits = [one for one in ordeal.kills if FAULT_OF[one.kind] == fault]
            times = [one.recovered_s for one in hits if one.recovered_s is not None]
            fault_log.add(fault, repetitions=len(hits), lost=sum(bool(one.wrong) for one in hits), recovered_s=times)
    lost = [f"{number} {one}" for number, one in enumerate(ordeal.kills) if one.wrong]
    assert not lost, "\n".join(lost)
    assert ordeal.rounds >= 3

    # The last round's parameters, and plain DVC in a folder that nothing ever happened to: the same lock.
    set_gain(ordeal.project, ordeal.rounds - 1)
    other = make_slow_project(tmp_path / "undisturbed", SPEAKERS)
    shutil.copyfile(ordeal.project.params_file, other.params_file)
    assert run_command(["dvc", "repro"], cwd=other.root).exit_code == 0
    assert read_lock(other) == read_lock(ordeal.project)
