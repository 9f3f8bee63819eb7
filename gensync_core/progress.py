"""One progress interface for everything that takes longer than two seconds.

A stage opens `progress("track", total)` and calls `advance`. Where the lines go is chosen once by `use_sink`: rich bars
on a terminal, JSON lines to a parent process (`PREFIX`), or nothing (the default: libraries stay quiet).
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PREFIX = "@progress "
_MIN_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class Tick:
    """State of one job: `done` of `total` steps (0: unknown), `eta_s` seconds left, `note` free text such as a loss."""

    job: str
    done: int
    total: int
    eta_s: float | None
    note: str = ""


Sink = Callable[[Tick], None]
_sink: Sink | None = None


def use_sink(sink: Sink | None) -> None:
    """Choose where ticks go for the whole process."""
    global _sink
    _sink = sink


def line_sink(tick: Tick) -> None:
    """Write one JSON line for a parent process; `parse_line` reads it."""
    fields = {"job": tick.job, "done": tick.done, "total": tick.total, "eta_s": tick.eta_s, "note": tick.note}
    sys.stdout.write(PREFIX + json.dumps(fields) + "\n")
    sys.stdout.flush()


def parse_line(line: str) -> Tick | None:
    """The tick in a line of a stage's output, or None where the line is ordinary output."""
    if not line.startswith(PREFIX):
        return None
    try:
        return Tick(**json.loads(line[len(PREFIX) :]))
    except (ValueError, TypeError):
        return None


class Progress:
    """Counts steps of one job and reports at most twice a second; threads may share it."""

    def __init__(self, job: str, total: int, done: int = 0) -> None:
        self.job, self.total, self.done = job, total, done
        self._first = done
        self._start = self._last = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more; `note` is shown beside the bar."""
        with self._lock:
            self.done += steps
            now = time.monotonic()
            if _sink is not None and (now - self._last >= _MIN_INTERVAL_S or self.done == self.total):
                self._last = now
                rate = (self.done - self._first) / max(now - self._start, 1e-9)
                eta_s = (self.total - self.done) / rate if self.total and rate > 0 else None
                _sink(Tick(self.job, self.done, self.total, eta_s, note))

    def rewind(self, done: int) -> None:
        """Go back to `done` steps: what came after them is done again."""
        self.done, self._first, self._start = done, done, time.monotonic()


@contextmanager
def progress(job: str, total: int, done: int = 0) -> Iterator[Progress]:
    """Open a job of `total` steps, `done` of which are behind us (a resumed training)."""
    yield Progress(job, total, done)
