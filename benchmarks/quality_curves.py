"""Quality over cost: curves of complete trainings with schedules of different lengths, and what equal quality costs.

Learning rates fall over a schedule, so a training that was stopped early says nothing: every point is a training of its own.
Between two points a figure is taken to be linear in the logarithm of the cost.
"""

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import laboratory
from finished_trainings import Archive, Finished
from laboratory import RESULTS, Laboratory, table, write_results
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from gensync_core.evaluation.figures import METRICS

SIGNS = {"psnr_head_over_truth": 1, "lmd_px512": -1, "aperture_r_gap": 1}
"""Figures in which two ways are held against each other; -1: less is better."""
ALL = "all"
COSTS = {"cpu_seconds": "CPU s", "seconds": "wall s", "images": "images"}
QUICK_STEPS = (20, 40)
_QUICK_FRAMES = 6
_SHOWN = ("psnr_full", "psnr_head_over_truth", "psnr_mouth", "lmd_px512", "aperture_r_gap")
_OFFSET = "offset_size"
_POINT_COLUMNS = [
    ("way", "way", ""),
    ("steps", "steps", "d"),
    ("images", "images", ".0f"),
    ("cpu_seconds", "CPU s", ".1f"),
    ("seconds", "wall s", ".1f"),
    ("peak_mb", "peak MiB", ".0f"),
    ("psnr_full", "PSNR full", ".2f"),
    ("psnr_head_over_truth", "head o. truth", ".2f"),
    ("psnr_mouth", "mouth", ".2f"),
    ("lmd_px512", "LMD px512", ".3f"),
    ("aperture_r_gap", "r gap", ".3f"),
    (_OFFSET, "|offset|", ".1f"),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """All speakers trained in one way with schedules of one length.

    Attributes:
        steps: of each training's heads.
        costs: sums over the trainings, by the keys of `COSTS`.
        peak_mb: of the training that took most.
        figures: means over speakers. NaN where one speaker has none: a mouth in which no face is found reaches nothing.
    """

    steps: int
    costs: dict[str, float]
    peak_mb: float
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one way of training, the cheapest first."""

    name: str
    points: list[Point]

    @classmethod
    def of(cls, name: str, trainings: Iterable[Finished]) -> "Curve":
        """One point for each length of schedule, the mean over seeds."""
        lengths: dict[int, dict[int, list[Finished]]] = {}
        for finished in trainings:
            seeds = lengths.setdefault(finished.training.steps, {})
            seeds.setdefault(finished.training.seed, []).append(finished)
        points = [_mean_point(steps, [_point(steps, done) for done in seeds.values()]) for steps, seeds in lengths.items()]
        return cls(name, sorted(points, key=lambda point: point.costs["images"]))

    def at(self, steps: int) -> Point:
        """The point of one length of schedule."""
        return next(point for point in self.points if point.steps == steps)

    def best(self, measure: str) -> float | None:
        """The best value that any of the trainings reached."""
        values = [point.figures[measure] for point in self.points if not math.isnan(point.figures[measure])]
        return max(values, key=lambda value: SIGNS[measure] * value, default=None)


class Reach(NamedTuple):
    """What it costs to reach a quality; `at_most` where the shortest schedule had reached it already."""

    cost: float
    at_most: bool

    def __str__(self) -> str:
        return f"{'<= ' if self.at_most else ''}{format(self.cost, '.0f' if self.cost >= 100 else '.1f')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What one measure's equal quality costs in two ways.

    Attributes:
        measure: key of `SIGNS`, or `ALL`.
        target: the value to reach; None for all of them.
        slow, fast: by the keys of `COSTS`; None where the quality is not reached.
        best: the best value on the fast curve.
    """

    measure: str
    target: float | None
    slow: dict[str, Reach | None]
    fast: dict[str, Reach | None]
    best: float | None

    def ratio(self, kind: str) -> float | None:
        """How many times less the fast way costs; a bound where one of the costs is one."""
        slow, fast = self.slow[kind], self.fast[kind]
        return None if slow is None or fast is None else slow.cost / fast.cost

    def ratio_text(self, kind: str) -> str:
        """The ratio with what is known about it."""
        slow, fast, ratio = self.slow[kind], self.fast[kind], self.ratio(kind)
        if slow is None or fast is None or ratio is None:
            return "-"
        if slow.at_most and fast.at_most:
            return "unknown"
        return f"{'>= ' if fast.at_most else '<= ' if slow.at_most else ''}{ratio:.1f}"

    def as_row(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        row: dict[str, Any] = {"measure": self.measure, "target": self.target, "best": self.best}
        for kind in COSTS:
            for name, reach in (("slow", self.slow[kind]), ("fast", self.fast[kind])):
                row[f"{name}_{kind}"] = None if reach is None else reach.cost
                row[f"{name}_{kind}_at_most"] = None if reach is None else reach.at_most
            row[f"ratio_{kind}"] = self.ratio(kind)
        return row


def cost_to_reach(curve: Curve, kind: str, targets: Mapping[str, float]) -> Reach | None:
    """The least cost at which all `targets` (measure -> value) are reached together; None: not reached.

    A point without one of the figures is left out.
    """
    points = [
        (math.log(point.costs[kind]), [SIGNS[name] * (point.figures[name] - target) for name, target in targets.items()])
        for point in curve.points
    ]
    points = [point for point in points if not any(map(math.isnan, point[1]))]
    if points and min(points[0][1]) >= 0:
        return Reach(math.exp(points[0][0]), at_most=True)
    for (cheap, before), (dear, after) in pairwise(points):
        share = _first_share(before, after)
        if share is not None:
            return Reach(math.exp(cheap + share * (dear - cheap)), at_most=False)
    return None


def _first_share(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Where in 0..1 all of some numbers, on straight lines from `before` to `after`, are first not negative at once."""
    start, end = 0.0, 1.0
    for first, last in zip(before, after, strict=True):
        if first < 0 and last < 0:
            return None
        if first < 0:
            start = max(start, first / (first - last))
        elif last < 0:
            end = min(end, first / (first - last))
    return start if start <= end else None


def compare(slow: Curve, fast: Curve, standard: int) -> list[Comparison]:
    """What the quality of the slow way at its `standard` number of steps costs on both curves: each measure, and all."""
    reached = slow.at(standard).figures
    targets = {measure: reached[measure] for measure in SIGNS if not math.isnan(reached[measure])}
    sets = {measure: {measure: value} for measure, value in targets.items()} | {ALL: targets}
    return [
        Comparison(
            measure=name,
            target=targets.get(name),
            slow={kind: cost_to_reach(slow, kind, wanted) for kind in COSTS},
            fast={kind: cost_to_reach(fast, kind, wanted) for kind in COSTS},
            best=None if name == ALL else fast.best(name),
        )
        for name, wanted in sets.items()
        if wanted
    ]


def points_table(curves: Sequence[Curve]) -> str:
    """Cost and quality of every point."""
    rows = [
        {"way": curve.name, "steps": point.steps, "peak_mb": point.peak_mb, **point.costs}
        | {name: None if math.isnan(value) else value for name, value in point.figures.items()}
        for curve in curves
        for point in curve.points
    ]
    return table(rows, _POINT_COLUMNS)


def comparison_table(slow: Curve, fast: Curve, comparisons: Sequence[Comparison]) -> str:
    """Cost of equal quality, and the ratios."""
    rows = [
        {
            "measure": _title(row.measure),
            "target": row.target,
            "best": row.best,
            "slow": str(row.slow["cpu_seconds"] or "not reached"),
            "fast": str(row.fast["cpu_seconds"] or "not reached"),
            **{kind: row.ratio_text(kind) for kind in COSTS},
        }
        for row in comparisons
    ]
    columns = [("measure", "equal", ""), ("target", "to reach", ".3f"), ("best", f"best of {fast.name}", ".3f")]
    columns += [("slow", f"{slow.name}, CPU s", ""), ("fast", f"{fast.name}, CPU s", "")]
    return table(rows, columns + [(kind, f"ratio {title}", "") for kind, title in COSTS.items()])


def plot(curves: Sequence[Curve], targets: Mapping[str, float | None], path: Path, title: str) -> None:
    """Quality over CPU seconds as a PNG, one panel a measure; a number at a point is the length of its schedule."""
    figure = Figure(figsize=(4.6 * len(SIGNS), 4.2), layout="constrained")
    figure.suptitle(title)
    for axes, (measure, sign) in zip(figure.subplots(1, len(SIGNS)), SIGNS.items(), strict=True):
        for curve, marker in zip(curves, "os^v", strict=False):
            costs = [point.costs["cpu_seconds"] for point in curve.points]
            values = [point.figures[measure] for point in curve.points]
            axes.plot(costs, values, marker=marker, label=curve.name)
            for point, cost, value in zip(curve.points, costs, values, strict=True):
                if not math.isnan(value):
                    axes.annotate(str(point.steps), (cost, value), (4, 4), textcoords="offset points", fontsize=7)
        target = targets.get(measure)
        if target is not None:
            axes.axhline(target, color="gray", linestyle="--", linewidth=1, label="to reach")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
        axes.set_xlabel("CPU seconds of training, all speakers")
        axes.set_title(_title(measure), fontsize=10)
        axes.set_ylabel(f"{METRICS[measure].unit}, {'more' if sign > 0 else 'less'} is better")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _title(measure: str) -> str:
    if measure == "aperture_r_gap":  # its own title goes on from the line above it
        return "Aperture correlation, real minus shuffled"
    return "all of them" if measure == ALL else METRICS[measure].title


def rows_of(way: str, trainings: Iterable[Finished]) -> list[dict[str, Any]]:
    """One row for each speaker of each training; the cost is that of the whole training."""
    return [
        {
            "way": way,
            "steps": finished.training.steps,
            "seed": finished.training.seed,
            "trained_together": len(finished.training.speakers),
            "images": finished.cost.images,
            "seconds": finished.cost.seconds,
            "cpu_seconds": finished.cost.cpu_seconds,
            "peak_mb": finished.peak_mb,
            "speaker": speaker,
            **figures,
        }
        for finished in trainings
        for speaker, figures in finished.figures.items()
    ]


def add_arguments(parser: argparse.ArgumentParser, seeds: Sequence[int]) -> None:
    """What benchmarks of curves have in common."""
    laboratory.add_arguments(parser, size_px=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help="a point is the mean over them")
    parser.add_argument("--standard", type=int, help="schedule whose quality is to be reached; without: the longest")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a trial: schedules of {QUICK_STEPS} steps and {_QUICK_FRAMES} held-out frames, results into the laboratory",
    )
    parser.add_argument("--results", type=Path, help="folder of the CSV and the PNG; without: docs/results")


def open_archive(arguments: argparse.Namespace) -> Archive:
    """The laboratory of the command line, with its finished trainings."""
    lab = Laboratory.open(arguments.work, arguments.clips, {"ingest": {"resolution": arguments.size}})
    return Archive(lab.with_params({"evaluate": {"max_frames": _QUICK_FRAMES}}) if arguments.quick else lab)


def report(
    name: str,
    title: str,
    arguments: argparse.Namespace,
    slow: tuple[str, Sequence[Finished]],
    fast: tuple[str, Sequence[Finished]],
) -> None:
    """Print both tables and write `<name>.csv`, `<name>.png` and what `--json` asks for."""
    slow_curve, fast_curve = Curve.of(*slow), Curve.of(*fast)
    curves = [slow_curve, fast_curve]
    standard = arguments.standard or slow_curve.points[-1].steps
    comparisons = compare(slow_curve, fast_curve, standard)
    folder = arguments.results or (arguments.work / "results" if arguments.quick else RESULTS)
    further = {"standard": standard, "seeds": arguments.seeds, "equal_quality": [row.as_row() for row in comparisons]}
    written = write_results(name, [*rows_of(*slow), *rows_of(*fast)], arguments.json, folder, further)
    picture = written.with_suffix(".png")
    plot(curves, {row.measure: row.target for row in comparisons}, picture, title)
    print(f"{title}\nmeans over speakers, sums of costs, most memory of one training\n\n{points_table(curves)}\n")
    print(f"to reach what {slow[0]} reaches with {standard} steps; ratio: cost of {slow[0]} over cost of {fast[0]}\n")
    print(f"{comparison_table(slow_curve, fast_curve, comparisons)}\n\n{written}\n{picture}")


def _point(steps: int, trainings: Sequence[Finished]) -> Point:
    """Of one seed."""
    speakers = [figures for finished in trainings for figures in finished.figures.values()]
    figures = {name: _mean([_number(figures[name]) for figures in speakers]) for name in _SHOWN}
    figures[_OFFSET] = _mean([abs(_number(figures["offset_frames"])) for figures in speakers])
    return Point(
        steps=steps,
        costs={kind: sum(float(getattr(finished.cost, kind)) for finished in trainings) for kind in COSTS},
        peak_mb=max(finished.peak_mb for finished in trainings),
        figures=figures,
    )


def _mean_point(steps: int, seeds: Sequence[Point]) -> Point:
    return Point(
        steps=steps,
        costs={kind: _mean([point.costs[kind] for point in seeds]) for kind in COSTS},
        peak_mb=max(point.peak_mb for point in seeds),
        figures={name: _mean([point.figures[name] for point in seeds]) for name in seeds[0].figures},
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
