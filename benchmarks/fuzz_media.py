"""Does every damaged or hostile file end in success or in an error of our own, in time, and leave nothing behind?

    python benchmarks/fuzz_media.py [--count 3000] [--seconds 900] [--seed 0] [--only SEED] [--work FOLDER] [--json FILE]

Small videos and recordings of every kind that is taken are made on the spot, mutated (see `media_mutations.py`), and given to

- read: what opens a file: facts, frames, sound, the conversion to WAV;
- gate: the footage gate, with thresholds so loose that a mutant gets to its last look;
- ingest: the whole stage, in a project of its own;
- cut: probing, cutting of a clip and all its scans, whatever the gate thinks of the file;
- sound: the speech that `gensync synth` is given.

A worker with its models loaded runs one case after the other, each in a folder of its own. A case is a defect where another
exception than ours comes out, the worker dies or is silent for too long, a child process is left, or a file. Case N of seed S
depends on S + N alone: its mutant is kept, and `--only` runs it again, in this process and with the whole traceback.

Prints a table of mutations and outcomes; ends with 1 where there was a defect. Stops after so many cases or seconds.
"""

import argparse
import collections
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from media_cases import DEFECT, KEPT_ASIDE, LEAVES, SPEAKER, WRITES_WHERE_TOLD, run_case, work
from media_mutations import MUTATIONS, SOUNDS, VIDEOS, make_files, mutated

ENTRIES = {"read": 9, "gate": 3, "ingest": 1, "cut": 1, "sound": 10}
CASE_LIMIT_S = 90.0
START_LIMIT_S = 180.0


class Case(NamedTuple):
    """One mutant and where it goes."""

    seed: int
    entry: str
    source: str
    mutation: str
    content: bytes


class Outcome(NamedTuple):
    """`result` is `taken`, `refused` or `DEFECT`; `detail` is a finding's code, an error, or what went wrong."""

    result: str
    detail: str
    seconds: float


def make_case(seed: int, files: Mapping[str, bytes]) -> Case:
    chance = random.Random(seed)
    entry = chance.choices(list(ENTRIES), list(ENTRIES.values()))[0]
    source = chance.choice(list(SOUNDS if entry == "sound" else VIDEOS))
    mutation = chance.choice(list(MUTATIONS)[1:]) if chance.random() > 0.02 else "none"
    others = [content for name, content in files.items() if name != source]
    return Case(seed, entry, source, mutation, mutated(files[source], mutation, chance, others))


class Worker:
    """The process that runs the cases, and is replaced when one kills it."""

    def __init__(self, temporary: Path) -> None:
        environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "GLOG_minloglevel": "3"}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        if not self._lines.get(timeout=START_LIMIT_S):
            raise SystemExit("the worker does not start; run one case with --only to see why")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def run(self, request: Mapping[str, str]) -> Outcome:
        """Run one case; after a defect that ends the worker, `alive` is false."""
        assert self._process.stdin is not None
        start = time.monotonic()
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=CASE_LIMIT_S)
        except queue.Empty:
            self.end()
            return Outcome(DEFECT, f"no end within {CASE_LIMIT_S:.0f} s", time.monotonic() - start)
        if not line:
            return Outcome(DEFECT, f"the worker died: exit code {self._process.wait()}", time.monotonic() - start)
        return Outcome(**json.loads(line))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def peak_mb(self) -> float:
        """Most memory that it has held, where the system says."""
        status = Path(f"/proc/{self._process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))

    def end(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()


class Bench:
    """A folder in which cases run one after the other, each in a folder of its own."""

    def __init__(self, work_folder: Path) -> None:
        self.files_folder = work_folder / "files"
        self.kept = work_folder / "defects"
        self._jobs, self.temporary = work_folder / "jobs", work_folder / "tmp"
        for folder in (self._jobs, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        make_files(self.files_folder)
        self.files = {name: (self.files_folder / name).read_bytes() for name in (*VIDEOS, *SOUNDS)}

    def put(self, case: Case) -> dict[str, str]:
        """A folder with the case's file in it, as the worker is told."""
        folder = self._jobs / str(case.seed)
        folder.mkdir()
        path = folder / f"input{Path(case.source).suffix}"
        path.write_bytes(case.content)
        return {"entry": case.entry, "path": str(path), "folder": str(folder)}

    def clear(self, case: Case, outcome: Outcome) -> Outcome:
        """Look for what was left behind, and make room for the next case."""
        folder = self._jobs / str(case.seed)
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        inputs = {name for name in found if Path(name).stem in ("input", SPEAKER)}
        changed = [name for name in inputs if (folder / name).read_bytes() != case.content]
        allowed = LEAVES[case.entry] if outcome.result == "taken" else LEAVES[case.entry] & {"speakers.yaml"}
        if case.entry in WRITES_WHERE_TOLD:
            allowed = LEAVES[case.entry]
        surplus = {name for name in found - inputs - allowed if not name.startswith(KEPT_ASIDE)}
        missing = LEAVES[case.entry] - found if outcome.result == "taken" and case.entry not in WRITES_WHERE_TOLD else set()
        elsewhere = sorted(path.name for path in self.temporary.iterdir())
        jobs = sorted(path.name for path in self._jobs.iterdir() if path != folder)
        shutil.rmtree(folder)
        if outcome.result == DEFECT:
            shutil.rmtree(self.temporary)
            self.temporary.mkdir()
        elif surplus or elsewhere or missing or changed or jobs:
            text = f"stray files {sorted(surplus)} {elsewhere} {jobs}, missing {sorted(missing)}, changed {changed}"
            return Outcome(DEFECT, text, outcome.seconds)
        return outcome

    def keep(self, case: Case, outcome: Outcome) -> None:
        """Save a mutant that showed a defect, and what went wrong beside it."""
        self.kept.mkdir(exist_ok=True)
        (self.kept / f"{case.seed}-{case.source}").write_bytes(case.content)
        (self.kept / f"{case.seed}.txt").write_text(f"{case.entry}, {case.mutation}, {case.source}\n{outcome.detail}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="SEED")
    parser.add_argument("--work", type=Path, help="keeps its files here rather than in a temporary folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work()
        return 0
    bench = Bench((options.work or Path(tempfile.mkdtemp(prefix="fuzz-media-"))).resolve())
    if options.only is not None:
        case = make_case(options.only, bench.files)
        print(f"{case.entry}, {case.mutation}, {case.source}: {run_case(bench.put(case))}")
        return 0
    return fuzz(bench, options)


def fuzz(bench: Bench, options: argparse.Namespace) -> int:
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    details: collections.Counter[str] = collections.Counter()
    start, worker, num, peak_mb = time.monotonic(), Worker(bench.temporary), 0, 0.0
    try:
        for num in range(1, options.count + 1):
            case = make_case(options.seed + num - 1, bench.files)
            outcome = bench.clear(case, worker.run(bench.put(case)))
            table[case.mutation][outcome.result] += 1
            seconds[case.mutation].append(outcome.seconds)
            details[f"{case.entry}: {outcome.result} {'' if outcome.result == DEFECT else outcome.detail}"] += 1
            if outcome.result == DEFECT:
                bench.keep(case, outcome)
                print(f"case {case.seed} ({case.entry}, {case.mutation}, {case.source}): {outcome.detail}", flush=True)
            if not worker.alive:
                worker = Worker(bench.temporary)
            peak_mb = max(peak_mb, worker.peak_mb())
            if num % 100 == 0:
                print(f"{num} cases, {time.monotonic() - start:.0f} s", flush=True)
            if time.monotonic() - start > options.seconds:
                break
    finally:
        worker.end()
    return report(bench, options, table, seconds, details, num, peak_mb)


def report(
    bench: Bench,
    options: argparse.Namespace,
    table: Mapping[str, collections.Counter[str]],
    seconds: Mapping[str, list[float]],
    details: collections.Counter[str],
    num: int,
    peak_mb: float,
) -> int:
    columns = ("taken", "refused", DEFECT)
    print(f"\n{'mutation':<14}{'taken':>8}{'refused':>9}{DEFECT:>8}{'mean s':>9}{'worst s':>9}")
    for name in sorted(table):
        counts, times = table[name], seconds[name]
        print(
            f"{name:<14}{counts['taken']:>8}{counts['refused']:>9}{counts[DEFECT]:>8}"
            f"{sum(times) / len(times):>9.2f}{max(times):>9.2f}"
        )
    total = {column: sum(counts[column] for counts in table.values()) for column in columns}
    print(f"\n{num} cases from seed {options.seed}: {total}; the worker held at most {peak_mb:.0f} MB")
    for text, count in details.most_common(25):
        print(f"{count:>6}  {text}")
    if options.json:
        content = {"seed": options.seed, "cases": num, "total": total, "mutations": table, "details": details}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if total[DEFECT]:
        print(f"mutants that showed a defect, and what went wrong: {bench.kept}; again: --only SEED")
    return 1 if total[DEFECT] else 0


if __name__ == "__main__":
    sys.exit(main())
