"""What orchestration costs for each speaker: seconds and memory around stages that do nothing, over the number of speakers.

    python benchmarks/orchestration.py [--speakers 8,50,200,1000] [--quick] [--limit 120] [--work FOLDER] [--json FILE]

For each size a project of the real pipeline's shape is made (`many_speakers`): three speakers in the cohort, so many adapted
ones beside them, everybody up to date, and commands that only write a line into each out. Each row was measured in a fresh
process; its CPU seconds and its memory are those of the whole tree of processes (memory: the sum of what they held at once).

- no-op: what a run costs that has nothing to do: `status` and `dry repro` are DVC's own commands, `plan` is the flow's;
- newcomer: registration of one more adapted speaker (without the check of footage), the plan for that speaker, and that
  speaker's stages, each through `tasks.dvc_project.reproduce` in the speaker's slice of the project, with what it takes to
  enter it into `dvc.lock`; `in all` is their sum, `flow` plan and stages of another newcomer through the Prefect flow, which
  starts a server for itself, `served` those of a third one on a server that stands, as under `gensync serve`;
- no slice: one stage of a fourth newcomer in the project itself, up to 50 speakers;
- all new: what N newcomers, one after another, cost AT MOST: each as much as the last one.

A call that the smaller sizes let expect to take more CPU seconds than `--limit` is not made: its row comes from the law
(`seconds = a + b N`, fitted to relative errors over the measured sizes) and is marked `law`. Stages of one newcomer are
sampled in their order as far as the limit goes. Beyond some hundred speakers a no-op costs more than the straight line says:
DVC reads `speakers.yaml`, which grows with them, anew for every stage whose state it looks at.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from child_cost import Cost, cost_of_tree, cpu_seconds
from many_speakers import make_footage, make_project, name_of

from gensync_core.paths import Project
from tasks.process import command_env

MARK_S = 30.0
"""Seconds that a newcomer among a thousand may cost in all, by the clock."""
SIZES, QUICK_SIZES = (8, 50, 200, 1000), (2, 4)
MOST_WITHOUT_SLICE = 50
STAGES = ("ingest", "parse", "audio", "track", "coarse", "adapt", "evaluate")
"""A newcomer's, in an order in which they can run."""
IN_ALL, SERVED, SERVED_IN_ALL = "newcomer: in all", "newcomer: served", "served: in all"
COLUMNS = ("speakers", "case", "source", "wall s", "CPU s", "peak MB", "x smallest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A measured or extrapolated cost; `source` says which: `measured`, `law`, `sum`, or `K of M` sampled stages."""

    speakers: int
    case: str
    source: str
    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(slots=True)
class Book:
    """All rows so far, and what they let expect of a larger project."""

    rows: list[Row] = field(default_factory=list)

    def enter(self, row: Row) -> Row:
        """Keep a row and show it at once."""
        self.rows.append(row)
        print(line(row, self.rows), flush=True)
        return row

    def expected(self, case: str, speakers: int) -> Row | None:
        """By the law of the sizes measured so far; None where fewer than two were."""
        known = [row for row in self.rows if row.case == case and row.source not in ("law", "sum")]
        if len({row.speakers for row in known}) < 2:
            return None
        sizes = [row.speakers for row in known]

        def at_size(values: Sequence[float]) -> float:
            a, b = fit(sizes, values)
            return a + b * speakers

        return Row(
            speakers=speakers,
            case=case,
            source="law",
            wall_s=at_size([row.wall_s for row in known]),
            cpu_s=at_size([row.cpu_s for row in known]),
            peak_mb=at_size([row.peak_mb for row in known]),
        )


def fit(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """`a` and `b` of `value = a + b * size`, not below zero, least squares of relative errors."""
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    slope, constant = np.polyfit(x, y, 1, w=1 / np.maximum(y, 1e-9))
    if slope < 0:
        return float(y.mean()), 0.0
    return (float(constant), float(slope)) if constant > 0 else (0.0, float(np.mean(y / x)))


def measure_size(book: Book, project: Project, speakers: int, limit_s: float, *, with_flow: bool) -> None:
    """All rows of one size."""

    def cost(case: str, *call: str, expect: Any = None, env: Mapping[str, str] | None = None) -> Row:
        expected = book.expected(case, speakers)
        if expected is not None and expected.cpu_s > limit_s:
            return book.enter(expected)
        return book.enter(_row(speakers, case, "measured", measured(project, *call, expect=expect, env=env)))

    everything = ("plan", "joint", "adapt", "evaluate")
    expected = book.expected("no-op: status", speakers)
    if expected is None or expected.cpu_s <= limit_s:
        measured(project, "dvc", "status")  # DVC remembers the hashes of files that it has seen once
    cost("no-op: status", "dvc", "status")
    cost("no-op: dry repro", "dvc", "repro", "--dry")
    cost("no-op: plan", *everything, expect=0)

    newcomer, second, third, fourth = (name_of(speakers + number) for number in range(4))
    registration = cost("newcomer: register", "register", newcomer)
    plan = cost("newcomer: plan", "plan", f"evaluate@{newcomer}", "--scope", newcomer, expect=len(STAGES))
    stage = _sample_stages(book, project, speakers, newcomer, limit_s)
    in_all = book.enter(_sum(speakers, IN_ALL, [registration, plan, *[stage] * len(STAGES)]))
    if with_flow:
        measured(project, "register", second)
        cost("newcomer: flow", "flow", second, expect=len(STAGES))
        measured(project, "register", third)
        from flows.prefect_server import prefect_server  # 4 s

        with prefect_server(project, None) as server:
            served = cost(SERVED, "flow", third, expect=len(STAGES), env={"PREFECT_API_URL": server.api_url})
        book.enter(_sum(speakers, SERVED_IN_ALL, [registration, served]))
    if speakers <= MOST_WITHOUT_SLICE:
        measured(project, "register", fourth)
        cost("no slice: stage", "whole", f"{STAGES[0]}@{fourth}", expect="executed")
    book.enter(replace(_scaled(in_all, speakers), case="all new: in all"))


def _sample_stages(book: Book, project: Project, speakers: int, newcomer: str, limit_s: float) -> Row:
    """What one of the newcomer's stages costs: the mean of as many as fit the limit, the first ones."""
    case, spent = "newcomer: stage", 0.0
    expected = book.expected(case, speakers)
    if expected is not None and expected.cpu_s > limit_s:
        return book.enter(expected)
    costs: list[Cost] = []
    for stage in STAGES:
        costs.append(measured(project, "stage", f"{stage}@{newcomer}", expect="executed"))
        spent += costs[-1].cpu_s
        if spent + costs[-1].cpu_s > limit_s:
            break
    wall, cpu = (float(np.mean([getattr(cost, name) for cost in costs])) for name in ("wall_s", "cpu_s"))
    mean = Cost(wall_s=wall, cpu_s=cpu, peak_mb=max(cost.peak_mb for cost in costs))
    return book.enter(_row(speakers, case, f"{len(costs)} of {len(STAGES)}", mean))


def _row(speakers: int, case: str, source: str, cost: Cost) -> Row:
    return Row(speakers=speakers, case=case, source=source, wall_s=cost.wall_s, cpu_s=cost.cpu_s, peak_mb=cost.peak_mb)


def _scaled(row: Row, times: float) -> Row:
    return replace(row, wall_s=row.wall_s * times, cpu_s=row.cpu_s * times)


def _sum(speakers: int, case: str, parts: Iterable[Row]) -> Row:
    parts = list(parts)
    wall, cpu = sum(row.wall_s for row in parts), sum(row.cpu_s for row in parts)
    return Row(speakers=speakers, case=case, source="sum", wall_s=wall, cpu_s=cpu, peak_mb=max(row.peak_mb for row in parts))


def measured(project: Project, *call: str, expect: Any = None, env: Mapping[str, str] | None = None) -> Cost:
    """What a call costs in a process of its own, whose environment has `env`, too.

    Raises:
        SystemExit: it failed, or its result is not `expect`.
    """
    if call[0] == "dvc":
        return cost_of_tree([sys.executable, "-m", *call], project.root, command_env(env)).cost
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", str(project.root), *call]
    done = cost_of_tree(command, Path(__file__).resolve().parents[1], command_env(env))
    answer = json.loads(done.last_line)
    if expect is not None and answer["result"] != expect:
        raise SystemExit(f"{' '.join(call)}: {answer['result']!r} instead of {expect!r}")
    return Cost(wall_s=answer["wall_s"], cpu_s=answer["cpu_s"], peak_mb=done.cost.peak_mb)


def run_inside(project: Project, call: Sequence[str]) -> None:
    """Make one call in this process and print what it gave and what it used, imports of our own modules left out."""
    kind, *arguments = call
    act = _calls(project)[kind]
    wall, cpu = time.monotonic(), cpu_seconds()
    result = act(arguments)
    print(json.dumps({"result": result, "wall_s": time.monotonic() - wall, "cpu_s": cpu_seconds() - cpu}), flush=True)


def _calls(project: Project) -> dict[str, Any]:
    from tasks import registration
    from tasks.dvc_project import Node, Policy, plan, reproduce

    def planned(arguments: list[str]) -> int:
        scope = arguments[arguments.index("--scope") + 1] if "--scope" in arguments else None
        targets = arguments[: arguments.index("--scope")] if scope else arguments
        return len(plan(project, targets, scope=scope))

    def registered(arguments: list[str]) -> str:
        video = make_footage(project.root / ".gensync" / "footage.mp4", arguments[0])
        return registration.add_speaker(project, video, arguments[0], "adapted").id

    def ran(arguments: list[str]) -> str:
        address = arguments[0]
        return reproduce(project, Node(address=address, deps=(), policy=Policy(), sliced=address.partition("@")[2]))

    def ran_whole(arguments: list[str]) -> str:
        return reproduce(project, Node(address=arguments[0], deps=(), policy=Policy()))

    def flowed(arguments: list[str]) -> int:
        from flows.pipeline import pipeline

        return len(pipeline(project.root, [f"evaluate@{arguments[0]}"], scope=arguments[0]))

    return {"plan": planned, "register": registered, "stage": ran, "whole": ran_whole, "flow": flowed}


def line(row: Row, rows: Iterable[Row]) -> str:
    """A row of the table; the last column compares with the smallest size of the same run."""
    first = min((other for other in rows if other.case == row.case), key=lambda other: other.speakers)
    ratio = row.cpu_s / first.cpu_s if first.cpu_s else float("nan")
    cells = [f"{row.wall_s:.1f}", f"{row.cpu_s:.1f}", f"{row.peak_mb:.0f}", f"{ratio:.1f}"]
    return f"{row.speakers:>8}  {row.case:<20} {row.source:>9}" + "".join(f"{cell:>12}" for cell in cells)


def laws(book: Book) -> dict[str, dict[str, float]]:
    """`a` and `b` of the CPU seconds of every case measured at two sizes or more."""
    found: dict[str, dict[str, float]] = {}
    for case in dict.fromkeys(row.case for row in book.rows):
        known = [row for row in book.rows if row.case == case and row.source not in ("law", "sum")]
        if len({row.speakers for row in known}) >= 2:
            a, b = fit([row.speakers for row in known], [row.cpu_s for row in known])
            found[case] = {"a": a, "b": b}
    return found


def law_text(law: Mapping[str, float]) -> str:
    """`a + b N`."""
    return f"{law['a']:.3g} + {law['b']:.3g} N"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--speakers", type=lambda text: [int(part) for part in text.split(",")], help="sizes, default 8,50,200,1000"
    )
    parser.add_argument("--quick", action="store_true", help="two tiny sizes, without Prefect, to see that it works")
    parser.add_argument(
        "--limit", type=float, default=120.0, help="CPU seconds that one call, or one sample of stages, may take"
    )
    parser.add_argument("--work", type=Path, help="folder for the projects, which are removed afterwards")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.inside:
        run_inside(Project(Path(options.inside[0])), [*options.inside[1:], *rest])
        return
    sizes = sorted(options.speakers or (QUICK_SIZES if options.quick else SIZES))
    book = Book()
    print(f"{COLUMNS[0]:>8}  {COLUMNS[1]:<20} {COLUMNS[2]:>9}" + "".join(f"{title:>12}" for title in COLUMNS[3:]))
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=options.work, prefix="orchestration-") as folder:
            project = make_project(Path(folder) / "project", size)
            measure_size(book, project, size, options.limit, with_flow=not options.quick)
            _write(options.json, book)
    print("\nCPU seconds:")
    for case, law in laws(book).items():
        print(f"  {case:<20} {law_text(law)}")
    for row in book.rows:
        if row.speakers == sizes[-1] and row.case in (IN_ALL, SERVED_IN_ALL):
            print(
                f"a newcomer among {sizes[-1]}, {row.case}: {row.wall_s:.0f} s, {row.cpu_s:.0f} of CPU (mark: {MARK_S:.0f} s)"
            )


def _write(path: Path | None, book: Book) -> None:
    if path is not None:
        path.write_text(json.dumps({"rows": [asdict(row) for row in book.rows], "laws": laws(book)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
