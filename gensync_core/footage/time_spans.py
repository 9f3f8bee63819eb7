"""Stretches of time in footage, in seconds after its first picture."""

from collections.abc import Iterable
from typing import NamedTuple


class TimeSpan(NamedTuple):
    """From and to."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s


def joined(spans: Iterable[TimeSpan], gap_s: float) -> list[TimeSpan]:
    """In order, as one where they overlap or no more than `gap_s` lies between them."""
    found: list[TimeSpan] = []
    for span in sorted(spans):
        if found and span.start_s <= found[-1].end_s + gap_s:
            found[-1] = TimeSpan(found[-1].start_s, max(found[-1].end_s, span.end_s))
        else:
            found.append(span)
    return found


def total_seconds(spans: Iterable[TimeSpan]) -> float:
    """How long all of them are."""
    return sum((span.seconds for span in spans), start=0.0)
