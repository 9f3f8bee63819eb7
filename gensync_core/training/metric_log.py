"""The one log of scalars: CSV with columns step, name, value, written whole at the end of a stage."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

from gensync_core.artefacts import atomic_path


class MetricLog:
    """Averages scalars over `every` steps and keeps the averages."""

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self.rows: list[tuple[int, str, float]] = []
        self._sums: dict[str, list[float]] = defaultdict(list)

    def add(self, step: int, **scalars: float) -> None:
        """Add one step's values."""
        for name, value in scalars.items():
            self._sums[name].append(value)
        if (step + 1) % self.every == 0:
            self.flush(step + 1)

    def flush(self, step: int) -> None:
        """Close the current averages at `step`."""
        self.rows += [(step, name, sum(values) / len(values)) for name, values in self._sums.items() if values]
        self._sums.clear()

    def state(self) -> dict[str, Any]:
        """All of it as plain values, for a resume state."""
        return {"rows": self.rows, "sums": self._sums}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.rows = [(int(step), str(name), float(value)) for step, name, value in state["rows"]]
        self._sums = defaultdict(list, state["sums"])

    def write(self, path: Path) -> None:
        """Write all rows; six significant digits."""
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("step", "name", "value"))
            writer.writerows((step, name, f"{value:.6g}") for step, name, value in self.rows)
