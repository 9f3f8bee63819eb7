"""Whether two ways to train differ by more than the seed does: differences seed by seed, and their standard error."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

DECISIVE_ERRORS = 3.0


class Measure(NamedTuple):
    """A column of the rows: key, title, decimals, and whether more of it is better (None: it decides nothing)."""

    key: str
    title: str
    decimals: int
    more_is_better: bool | None = None


class Spread(NamedTuple):
    """A mean over seeds, how much it is in doubt (NaN for a single seed), and the values themselves."""

    mean: float
    error: float
    values: list[float]

    @property
    def decided(self) -> bool:
        """Whether the mean is so far from 0 that it is no chance."""
        return math.isfinite(self.error) and abs(self.mean) > DECISIVE_ERRORS * self.error


def seed_means(rows: Sequence[Mapping[str, Any]], variant: str, key: str) -> Spread | None:
    """A variant's figure: mean over speakers of each seed, then over seeds; the error is the standard deviation."""
    return _over_seeds({(row["seed"], row["speaker"]): row.get(key) for row in rows if row["variant"] == variant})


def differences(rows: Sequence[Mapping[str, Any]], reference: str, key: str) -> dict[str, Spread]:
    """Each variant less `reference`, over the seeds and speakers that have the figure in both; errors are standard errors.

    Two or three seeds give a poor estimate of an error, often far too small: it counts as no smaller than the median of all
    variants'.
    """
    values: dict[str, dict[tuple[int, str], Any]] = {}
    for row in rows:
        values.setdefault(row["variant"], {})[row["seed"], row["speaker"]] = row.get(key)
    base = values.pop(reference, {})
    found = {}
    for variant, own in values.items():
        pairs = {place: _difference(value, base.get(place)) for place, value in own.items()}
        if (spread := _over_seeds(pairs)) is not None:
            found[variant] = spread._replace(error=spread.error / math.sqrt(len(spread.values)))
    known = [spread.error for spread in found.values() if math.isfinite(spread.error)]
    floor = statistics.median(known) if known else math.nan
    return {name: spread._replace(error=max(spread.error, floor)) for name, spread in found.items()}


def gains_and_losses(
    measures: Sequence[Measure], found: Mapping[str, Mapping[str, Spread]], variant: str
) -> tuple[list[str], list[str]] | None:
    """Titles of the measures in which a variant is better than the reference, and worse; None where nothing can be said.

    `found` are the `differences` by the measure's key.
    """
    better, worse, known = [], [], False
    for measure in measures:
        spread = found[measure.key].get(variant)
        if measure.more_is_better is None or spread is None or not math.isfinite(spread.error):
            continue
        known = True
        if spread.decided:
            (better if (spread.mean > 0) == measure.more_is_better else worse).append(measure.title)
    return (better, worse) if known else None


def shown(spread: Spread | None, decimals: int, sign: str = "") -> str | None:
    """As text, mean ± error."""
    if spread is None:
        return None
    text = f"{spread.mean:{sign}.{decimals}f}"
    return f"{text} ±{spread.error:.{decimals}f}" if math.isfinite(spread.error) else text


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _over_seeds(values: Mapping[tuple[int, str], float | None]) -> Spread | None:
    by_seed: dict[int, list[float]] = {}
    for (seed, _), value in values.items():
        if value is not None and math.isfinite(value):
            by_seed.setdefault(seed, []).append(value)
    means = [statistics.fmean(of_speakers) for _, of_speakers in sorted(by_seed.items())]
    if not means:
        return None
    return Spread(statistics.fmean(means), statistics.stdev(means) if len(means) > 1 else math.nan, means)
