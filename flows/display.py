"""What a person sees while stages run: bars on a terminal, else a plain line now and then. Both on stderr."""

import sys
import threading
import time
from datetime import datetime
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from gensync_core.progress import Tick

_PLAIN_INTERVAL_S = 10.0
_DONE = {"executed": "done", "unchanged": "up to date", "run-cache": "restored", "failed": "failed"}


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`; empty for None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def since(moment: float) -> str:
    """A moment in seconds since the epoch, as people write it here: `2026-05-03 14:05`."""
    return datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M")


class BarDisplay:
    """One bar for each running stage, with the time left; a line for each that ended."""

    def __init__(self, waiting_for: str) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self._console,
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._waiting: TaskID | None = self._progress.add_task(waiting_for, total=None, left="", note="")
        self._lock = threading.Lock()

    def __enter__(self) -> "BarDisplay":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def started(self, address: str) -> None:
        """Open a bar."""
        with self._lock:
            if self._waiting is not None:
                self._progress.remove_task(self._waiting)
                self._waiting = None
            self._bars[address] = self._progress.add_task(address, total=None, left="", note="")

    def ticked(self, address: str, tick: Tick) -> None:
        """Move a bar."""
        if (bar := self._bars.get(address)) is None:
            return
        left = f"{duration(tick.eta_s)} left" if tick.eta_s is not None else ""
        self._progress.update(
            bar, description=_title(address, tick), total=tick.total or None, completed=tick.done, left=left, note=tick.note
        )

    def ended(self, address: str, how: str, seconds: float) -> None:
        """Close a bar and say how it ended."""
        with self._lock:
            if (bar := self._bars.pop(address, None)) is not None:
                self._progress.remove_task(bar)
        style = "red" if how == "failed" else "green"
        self._console.print(f"[{style}]{_DONE[how]:>10}[/]  {address}  [dim]{duration(seconds)}[/]", highlight=False)


class LineDisplay:
    """A line when a stage begins and ends, and one every ten seconds between."""

    def __init__(self, waiting_for: str) -> None:
        self._waiting_for = waiting_for
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "LineDisplay":
        self._say(self._waiting_for)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def started(self, address: str) -> None:
        """Say so."""
        self._last[address] = time.monotonic()
        self._say(f"{address}: started")

    def ticked(self, address: str, tick: Tick) -> None:
        """Say how far the stage is, unless that was said a moment ago."""
        now = time.monotonic()
        if now - self._last.get(address, 0.0) < _PLAIN_INTERVAL_S:
            return
        self._last[address] = now
        share = f"{tick.done}/{tick.total} ({100 * tick.done // tick.total} %)" if tick.total else str(tick.done)
        left = f"{duration(tick.eta_s)} left" if tick.eta_s is not None else ""
        self._say(", ".join(filter(None, [f"{_title(address, tick)}: {share}", left, tick.note])))

    def ended(self, address: str, how: str, seconds: float) -> None:
        """Say how it ended."""
        self._say(f"{address}: {_DONE[how]} after {duration(seconds)}")

    def _say(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def _title(address: str, tick: Tick) -> str:
    """The stage, and what it is at where that is not the stage itself (fetching weights, decoding frames)."""
    return address if tick.job.partition(" ")[0] == address.partition("@")[0].partition(" ")[0] else f"{address}, {tick.job}"


Display = BarDisplay | LineDisplay


def open_display(waiting_for: str) -> Display:
    """The display that fits stderr; `waiting_for` is shown until the first stage starts."""
    return BarDisplay(waiting_for) if sys.stderr.isatty() else LineDisplay(waiting_for)
