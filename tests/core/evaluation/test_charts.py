import re

import numpy as np
import pytest

from gensync_core.evaluation.charts import Series, line_chart, ticks
from gensync_core.evaluation.contact_sheet import arrange, spread_over_apertures, tile


def points_of(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in line.split()]
        for line in re.findall(r'<polyline[^>]*points="([^"]*)"', svg)
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 10.0, [0, 2, 4, 6, 8, 10]), (-0.1, 0.1, [-0.1, -0.05, 0, 0.05, 0.1]), (3.0, 4.0, [3, 3.2, 3.4, 3.6, 3.8, 4])],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_axes_map_linearly_and_up_is_up():
    (line,) = points_of(line_chart([Series("a", np.array([0.0, 5, 10]), np.array([0.0, 1, 2]), "true")], "x", "y"))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y2 < y1 < y0


def test_logarithmic_axis_spaces_decades_evenly_and_drops_zero():
    lines = points_of(line_chart([Series("a", np.arange(4.0), np.array([1.0, 0.1, 0.01, 0]), "true")], "x", "y", log_y=True))
    assert [len(line) for line in lines] == [3]
    heights = [y for _, y in lines[0]]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.11)


def test_unknown_values_interrupt_the_line():
    lines = points_of(line_chart([Series("a", np.arange(5.0), np.array([1, 2, np.nan, 2, 1]), "true")], "x", "y"))
    assert [len(line) for line in lines] == [2, 2]


def test_a_chart_of_nothing_says_so():
    assert "no values" in line_chart([], "x", "y")
    assert "no values" in line_chart([Series("a", np.arange(2.0), np.full(2, np.nan), "true")], "x", "y")


def test_names_are_escaped():
    svg = line_chart([Series("<b>", np.arange(2.0), np.arange(2.0), "true")], "x & y", "y")
    assert "<b>" not in svg
    assert "x &amp; y" in svg


def test_sheet_holds_the_most_closed_and_the_widest():
    aperture = np.array([0.3, np.nan, 0.1, 0.2, 0.05, 0.25])
    assert spread_over_apertures(aperture, 3).tolist() == [4, 3, 0]
    assert spread_over_apertures(aperture, 9).tolist() == [4, 2, 3, 5, 0]
    assert spread_over_apertures(np.full(3, np.nan), 2).tolist() == [0, 2]


def test_sheet_is_rows_by_columns():
    tiles = [[tile(np.full((30, 20, 3), 40 * (2 * y + x), dtype=np.uint8), 16) for x in range(2)] for y in range(2)]
    sheet = arrange(tiles)
    assert sheet.shape == (36, 36, 3)
    assert [sheet[y, x, 0] for y in (0, 20) for x in (0, 20)] == [0, 40, 80, 120]
    with pytest.raises(ValueError, match="equally long"):
        arrange([tiles[0], tiles[0][:1]])
