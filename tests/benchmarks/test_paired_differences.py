"""The statistics of the benchmarks that compare variants; benchmarks are programs, so their folder is put on the path here."""

import math
from pathlib import Path

import pytest


@pytest.fixture
def paired(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import paired_differences

    return paired_differences


def _rows(**variants):
    """Variant -> figure of each seed; two speakers, of whom the second has 10 more."""
    return [
        {"variant": name.replace("_", " "), "seed": seed, "speaker": speaker, "psnr": value + more}
        for name, values in variants.items()
        for seed, value in enumerate(values)
        for speaker, more in (("anna", 0.0), ("bert", 10.0))
    ]


def test_differences_are_paired_by_seed(paired):
    rows = _rows(full=[30.0, 34.0, 38.0], without=[29.0, 32.9, 37.1])
    found = paired.differences(rows, "full", "psnr")
    assert set(found) == {"without"}
    assert found["without"].values == pytest.approx([-1.0, -1.1, -0.9])
    assert found["without"].mean == pytest.approx(-1.0)
    assert found["without"].error == pytest.approx(0.1 / math.sqrt(3))
    assert found["without"].decided
    assert paired.seed_means(rows, "full", "psnr").mean == pytest.approx(39.0)
    assert paired.seed_means(rows, "full", "psnr").error == pytest.approx(4.0)


def test_an_error_counts_as_no_smaller_than_the_median_of_all(paired):
    rows = _rows(full=[30.0, 30.0], lucky=[30.2, 30.2], one=[30.1, 29.9], other=[30.1, 29.9])
    found = paired.differences(rows, "full", "psnr")
    assert found["lucky"].error == pytest.approx(found["one"].error) == pytest.approx(0.1)
    assert not found["lucky"].decided


def test_a_single_seed_decides_nothing(paired):
    found = {"psnr": paired.differences(_rows(full=[30.0], without=[20.0]), "full", "psnr")}
    assert found["psnr"]["without"].mean == -10
    assert not found["psnr"]["without"].decided
    assert paired.gains_and_losses([paired.Measure("psnr", "PSNR", 2, True)], found, "without") is None
    assert paired.shown(found["psnr"]["without"], 1, "+") == "-10.0"


def test_a_figure_that_one_side_lacks_does_not_count(paired):
    rows = _rows(full=[30.0, 30.0], without=[31.0, 31.2])
    rows[0]["psnr"] = None  # full, seed 0, anna
    rows[-1]["psnr"] = math.nan  # without, seed 1, bert
    assert paired.differences(rows, "full", "psnr")["without"].values == pytest.approx([1.0, 1.2])


def test_gains_and_losses_know_which_way_is_better(paired):
    measures = [paired.Measure("psnr", "PSNR", 2, True), paired.Measure("lmd", "LMD", 2, False), paired.Measure("s", "s", 0)]
    spread = paired.Spread(0.5, 0.1, [])
    found = {key: {"without": spread} for key in ("psnr", "lmd", "s")}
    assert paired.gains_and_losses(measures, found, "without") == (["PSNR"], ["LMD"])
    found["psnr"]["without"] = spread._replace(error=0.2)
    assert paired.gains_and_losses(measures, found, "without") == ([], ["LMD"])
