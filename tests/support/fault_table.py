"""Faults that must lose nothing: which tests provoke them, and a table of what came of it (`pytest --fault-table`)."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import pytest

# The failure cases of the design, in its order.
FAULTS = (
    "parallel runs",
    "kill -9 of the flow",
    "kill -9 of DVC",
    "kill -9 of a stage",
    "kill -9 of the guard",
    "kill -9 of the process group",
    "deadline passed",
    "same stage twice at once",
    "duplicate inbox file",
    "half-written inbox file",
    "corrupt inbox file",
    "failed run retried",
    "speaker added, edited, removed",
    "second workspace",
    "spot machine taken in mid-chain",
    "part of an array fails",
    "orchestrator restarted",
    "cache object missing on push",
    "training twice, or killed and resumed",
    "module missing among a stage's deps",
    "dvc repro beside the flow",
    "schedule fires",
)
_REPORTED = "fault repetitions"
_TIME_IS_OVER = "the time for all faults is over (--fault-minutes)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("faults")
    group.addoption("--fault-table", action="store_true", help="run the tests of faults only, and print the table of faults")
    group.addoption("--fault-minutes", type=float, default=20.0, help="with --fault-table: what has not ended by then fails")


class FaultLog:
    """Where a test that provokes faults many times says how often, and what came of it."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def add(self, fault: str, *, repetitions: int, lost: int, recovered_s: Sequence[float] = ()) -> None:
        """Note `repetitions` of a fault, in how many of them something was lost, and seconds to recovery."""
        assert fault in FAULTS
        self._properties.append((_REPORTED, [fault, repetitions, lost, [round(value, 3) for value in recovered_s]]))


@pytest.fixture
def fault_log(request: pytest.FixtureRequest) -> FaultLog:
    """For tests that repeat a fault; those that do not say anything count once."""
    return FaultLog(request.node.user_properties)


def pytest_configure(config: pytest.Config) -> None:
    """Collects only where a table is wanted."""
    if config.getoption("--fault-table"):
        config.pluginmanager.register(_Table(config), "fault-table")


@dataclass
class _Row:
    tests: int = 0
    failed: int = 0
    repetitions: int = 0
    lost: int = 0
    recovered_s: list[float] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def cells(self, fault: str) -> tuple[str, ...]:
        times = self.recovered_s
        recovered = f"{median(times):.1f}, at most {max(times):.1f}" if len(times) > 1 else "".join(f"{t:.1f}" for t in times)
        if self.skipped:
            reasons = (f"{why} ({self.skipped.count(why)})" for why in sorted(set(self.skipped)))
            recovered = "; ".join(filter(None, [recovered, *reasons]))
        return fault, str(self.tests), str(self.repetitions), str(self.lost), recovered or "not run"


class _Table:
    """Picks the tests of faults, holds them to the time there is, and counts."""

    def __init__(self, config: pytest.Config) -> None:
        self._end = time.monotonic() + 60 * float(config.getoption("--fault-minutes") or 0)
        self._rows: dict[str, _Row] = defaultdict(_Row)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.get_closest_marker("fault")]
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("fault")])
        # Files that take longest first, so that none is begun when the other workers have ended.
        chosen.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))
        items[:] = chosen
        for item in items:
            item.user_properties.extend(("fault", fault) for fault in faults_of(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        own = item.get_closest_marker("timeout")
        allowed = float(own.args[0]) if own and own.args else float(item.config.getini("timeout") or 600)
        item.add_marker(pytest.mark.timeout(max(1.0, min(allowed, self._end - time.monotonic()))), append=False)
        return (yield)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if time.monotonic() > self._end:
            pytest.fail(f"not run: {_TIME_IS_OVER}", pytrace=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        properties = [(str(name), value) for name, value in report.user_properties]
        told = [value for name, value in properties if name == _REPORTED]
        for fault in [str(value) for name, value in properties if name == "fault"]:
            row, own = self._rows[fault], [entry for entry in told if isinstance(entry, list) and entry[0] == fault]
            if report.skipped:
                row.skipped.append(f"skipped: {_reason(report)}")
                continue
            if report.failed and _TIME_IS_OVER in report.longreprtext:
                row.failed, row.skipped = row.failed + 1, [*row.skipped, f"not run: {_TIME_IS_OVER}"]
                continue
            row.tests += 1
            row.failed += report.failed
            for _, repetitions, lost, recovered_s in own:
                row.repetitions, row.lost = row.repetitions + repetitions, row.lost + lost
                row.recovered_s.extend(recovered_s)
            if not own:
                row.repetitions, row.lost = row.repetitions + 1, row.lost + report.failed
                row.recovered_s.append(report.duration)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        table = [("fault", "tests", "repetitions", "lost", "recovered in (s)")]
        table += [self._rows[fault].cells(fault) for fault in FAULTS]
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        terminalreporter.section("faults")
        for row in table:
            name, *numbers, recovered = row
            shown = [name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))]
            terminalreporter.write_line("  ".join([*shown, recovered]))
        repetitions = sum(row.repetitions for row in self._rows.values())
        lost, failed = (sum(getattr(row, name) for row in self._rows.values()) for name in ("lost", "failed"))
        terminalreporter.write_line(f"{repetitions} repetitions, lost {lost}, failed tests {failed}")


_LONGEST = ("test_random_kills.py", "test_end_to_end.py", "test_cloud.py", "test_serving.py")


def faults_of(item: pytest.Item) -> list[str]:
    """The faults that a test provokes, by its markers `fault(NAME, ...)`."""
    return [str(name) for marker in item.iter_markers("fault") for name in marker.args]


def _reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    return str(longrepr[2] if isinstance(longrepr, tuple | list) else longrepr).removeprefix("Skipped: ")
