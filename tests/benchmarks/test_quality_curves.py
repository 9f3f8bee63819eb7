"""What equal quality costs, on curves whose answer is known."""

import math
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
COSTS = ("cpu_seconds", "seconds", "images")


@pytest.fixture
def curves(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import quality_curves

    return quality_curves


def curve(curves: ModuleType, name: str, costs: list[float], figures: dict[str, list[float]], factor: float = 1.0):
    """A curve with these figures; measures that are not named stand still at 0. Wall-clock is twice the CPU's."""
    points = []
    for place, cost in enumerate(costs):
        values = {measure: 0.0 for measure in curves.SIGNS} | {key: column[place] for key, column in figures.items()}
        spent = cost * factor
        points.append(
            curves.Point(
                steps=100 * 2**place,
                costs={"cpu_seconds": spent, "seconds": 2 * spent, "images": 10 * spent},
                peak_mb=1.0,
                figures=values,
            )
        )
    return curves.Curve(name, points)


def test_the_same_curve_at_a_fraction_of_the_cost_gives_the_known_ratio(curves) -> None:
    figures = {"psnr_head_over_truth": [20.0, 22.0, 23.0], "lmd_px512": [3.0, 2.5, 2.0], "aperture_r_gap": [0.1, 0.3, 0.5]}
    slow = curve(curves, "slow", [10, 20, 40], figures)
    fast = curve(curves, "fast", [10, 20, 40], figures, factor=1 / 6.8)

    rows = curves.compare(slow, fast, standard=400)

    assert [row.measure for row in rows] == [*curves.SIGNS, curves.ALL]
    for row in rows:
        assert row.slow["cpu_seconds"].cost == pytest.approx(40)
        assert row.ratio_text("cpu_seconds") == "6.8"
        assert [row.ratio(kind) for kind in COSTS] == pytest.approx([6.8] * 3)


def test_between_two_points_a_figure_is_linear_in_the_logarithm_of_the_cost(curves) -> None:
    up = curve(curves, "up", [10, 1000], {"psnr_head_over_truth": [20.0, 24.0]})
    down = curve(curves, "down", [10, 1000], {"lmd_px512": [4.0, 2.0]})

    assert curves.cost_to_reach(up, "cpu_seconds", {"psnr_head_over_truth": 22.0}).cost == pytest.approx(100)
    assert curves.cost_to_reach(up, "seconds", {"psnr_head_over_truth": 21.0}).cost == pytest.approx(20 * 10**0.5)
    assert curves.cost_to_reach(down, "cpu_seconds", {"lmd_px512": 3.0}).cost == pytest.approx(100)


def test_what_is_not_reached_is_said_with_the_best_that_was(curves) -> None:
    slow = curve(curves, "slow", [10, 20], {"psnr_head_over_truth": [20.0, 25.0]})
    fast = curve(curves, "fast", [1, 2], {"psnr_head_over_truth": [19.0, 24.5]})

    rows = curves.compare(slow, fast, standard=200)
    psnr = next(row for row in rows if row.measure == "psnr_head_over_truth")
    text = curves.comparison_table(slow, fast, rows)

    assert psnr.fast["cpu_seconds"] is None
    assert (psnr.ratio_text("cpu_seconds"), psnr.ratio("cpu_seconds"), psnr.best) == ("-", None, 24.5)
    assert next(row for row in rows if row.measure == curves.ALL).fast["cpu_seconds"] is None
    assert sum("not reached" in line for line in text.splitlines()) == 2


def test_a_shortest_schedule_that_is_good_enough_gives_a_bound(curves) -> None:
    slow = curve(curves, "slow", [10, 40], {"psnr_head_over_truth": [20.0, 22.0]})
    fast = curve(curves, "fast", [5, 10], {"psnr_head_over_truth": [23.0, 24.0]})

    row = curves.compare(slow, fast, standard=200)[0]

    assert row.fast["cpu_seconds"] == (pytest.approx(5), True)
    assert str(row.fast["cpu_seconds"]) == "<= 5.0"
    assert row.ratio_text("cpu_seconds") == ">= 8.0"
    assert curves.compare(fast, slow, standard=100)[0].ratio_text("cpu_seconds") == "-"
    assert curves.compare(fast, fast, standard=100)[0].ratio_text("cpu_seconds") == "unknown"


def test_all_measures_have_to_hold_at_the_same_cost(curves) -> None:
    """PSNR holds up to a cost of 100 and from 10,000 on, the gap from 1,000 on."""
    there = curve(
        curves,
        "there",
        [10, 1000, 100_000],
        {"psnr_head_over_truth": [2.0, -2.0, 2.0], "aperture_r_gap": [-1.0, 0.0, 1.0]},
    )
    targets = {"psnr_head_over_truth": 0.0, "aperture_r_gap": 0.0}

    reach = curves.cost_to_reach(there, "cpu_seconds", targets)

    assert reach.cost == pytest.approx(10_000)
    assert curves.cost_to_reach(there, "cpu_seconds", {"aperture_r_gap": 0.0}).cost == pytest.approx(1000)
    assert curves.cost_to_reach(there, "cpu_seconds", {"psnr_head_over_truth": 0.0}) == (pytest.approx(10), True)


def test_a_point_without_a_figure_reaches_nothing(curves) -> None:
    gaps = curve(curves, "gaps", [10, 100, 1000], {"aperture_r_gap": [0.0, math.nan, 1.0]})

    assert curves.cost_to_reach(gaps, "cpu_seconds", {"aperture_r_gap": 0.5}).cost == pytest.approx(100)
    assert gaps.best("aperture_r_gap") == 1.0


def test_points_add_up_costs_over_speakers_and_average_over_seeds(curves) -> None:
    from finished_trainings import Finished, Training
    from laboratory import Cost

    def finished(speaker: str, steps: int, seed: int, cpu: float, psnr: float, offset: int | None = 0) -> Finished:
        figures = dict.fromkeys(("psnr_full", "psnr_head_over_truth", "psnr_mouth", "lmd_px512", "aperture_r_gap"), psnr)
        training = Training(speakers=(speaker,), steps=steps, seed=seed)
        return Finished(training, Cost(2 * cpu, cpu, 2 * steps), 100 * cpu, {speaker: figures | {"offset_frames": offset}})

    made = curves.Curve.of(
        "separate",
        [
            finished("anna", 300, 0, 3.0, 30.0),
            finished("bert", 300, 0, 5.0, 20.0),
            finished("anna", 300, 1, 3.0, 32.0),
            finished("bert", 300, 1, 7.0, 22.0),
            finished("anna", 150, 0, 1.0, 10.0, offset=-4),
            finished("bert", 150, 0, 1.0, 20.0, offset=2),
        ],
    )

    assert [point.steps for point in made.points] == [150, 300]
    assert made.at(300).costs == {"cpu_seconds": 9.0, "seconds": 18.0, "images": 1200.0}
    assert made.at(300).peak_mb == 700.0
    assert made.at(300).figures["psnr_full"] == 26.0
    assert made.at(150).figures["offset_size"] == 3.0
    missing = curves.Curve.of("x", [finished("anna", 1, 0, 1.0, 1.0, offset=None), finished("bert", 1, 0, 1.0, 1.0)])
    assert math.isnan(missing.at(1).figures["offset_size"])


def test_a_plot_shows_one_panel_a_measure(curves, tmp_path: Path) -> None:
    from PIL import Image

    slow = curve(curves, "slow", [10, 40], {"psnr_head_over_truth": [20.0, 22.0]})
    curves.plot([slow], {"psnr_head_over_truth": 22.0}, tmp_path / "new" / "plot.png", "title")

    width, height = Image.open(tmp_path / "new" / "plot.png").size
    assert width > 2 * height
