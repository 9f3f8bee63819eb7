"""Line charts as inline SVG: the same numbers give the same text, and the page's style sheet gives the colours."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 1000, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 40
_MAX_POINTS = 2000


class Series(NamedTuple):
    """One line of a chart; `style` is the CSS class of the line, NaN interrupts it."""

    name: str
    x: np.ndarray
    y: np.ndarray
    style: str


def line_chart(series: Sequence[Series], x_label: str, y_label: str, *, log_y: bool = False, width: int = WIDTH) -> str:
    """An `<svg>` element with axes, grid and lines; a chart without a single finite point says so.

    Args:
        series: lines, drawn in this order, so the last one lies on top.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        log_y: logarithmic vertical axis; values that are not positive are left out.
        width: of the view box, px.
    """
    lines = [Series(s.name, np.asarray(s.x, float), _scaled(np.asarray(s.y, float), log_y), s.style) for s in series]
    points = [np.stack([s.x, s.y])[:, np.isfinite(s.y)] for s in lines]
    together = np.concatenate(points, axis=1) if points else np.empty((2, 0))
    head = f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">'
    if together.shape[1] == 0:
        return f'{head}<text class="label" x="{width / 2:g}" y="{HEIGHT / 2:g}" text-anchor="middle">no values</text></svg>'
    x_range, y_range = _range(together[0], 0.0), _range(together[1], 0.05)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0])
        up = (y - y_range[0]) / (y_range[1] - y_range[0])
        return _LEFT + across * (width - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    parts = [head]
    for tick in ticks(*x_range, 8):
        x, _ = place(tick, y_range[0])
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - _BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for tick in _log_ticks(*y_range) if log_y else ticks(*y_range, 7):
        _, y = place(x_range[0], tick)
        text = f"{10**tick:.3g}" if log_y else f"{tick:g}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for line in lines:
        for piece in _pieces(line):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in piece))
            parts.append(f'<polyline class="line {line.style}" points="{path}"><title>{escape(line.name)}</title></polyline>')
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(
        f'<text class="label" x="{(width + _LEFT) / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(13 {middle:g}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) inside low..high."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(multiple * power for multiple in (1, 2, 5, 10) if multiple * power >= rough * (1 - 1e-9))
    digits = max(0, 1 - math.floor(math.log10(step)))
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, digits) + 0.0 for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Exponents: 1, 2 and 5 of each decade, or the decades alone where there are many."""
    multiples = (1, 2, 5) if high - low < 2.5 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    exponents = [decade + math.log10(multiple) for decade in decades for multiple in multiples]
    return [exponent for exponent in exponents if low <= exponent <= high] or [(low + high) / 2]


def _scaled(y: np.ndarray, log_y: bool) -> np.ndarray:
    if not log_y:
        return np.where(np.isfinite(y), y, np.nan)
    return np.log10(np.where(np.isfinite(y) & (y > 0), y, np.nan))


def _range(values: np.ndarray, margin: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12:
        spread = abs(low) * 0.1 or 1.0
        return low - spread, high + spread
    return low - margin * (high - low), high + margin * (high - low)


def _pieces(line: Series) -> list[list[tuple[float, float]]]:
    """Runs of finite points; a line of very many points is thinned evenly."""
    step = max(1, -(-len(line.x) // _MAX_POINTS))
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x[::step].tolist(), line.y[::step].tolist(), strict=True):
        if math.isfinite(y):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]
