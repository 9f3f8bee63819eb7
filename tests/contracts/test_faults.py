"""Every fault that must lose nothing has a test, and every test of a fault names one that is on the list."""

import ast
from pathlib import Path

from fault_table import FAULTS

TESTS = Path(__file__).resolve().parents[1]


def marked() -> dict[str, list[str]]:
    """Faults by the markers `fault(NAME, ...)` of the tests' text: name -> files."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                for name in node.args:
                    if isinstance(name, ast.Constant):
                        found.setdefault(str(name.value), []).append(path.name)
    return found


def test_every_fault_has_a_test() -> None:
    assert sorted(marked()) == sorted(FAULTS)
    assert len(set(FAULTS)) == len(FAULTS)


def test_each_kind_of_kill_is_made_at_random_moments() -> None:
    kills = {fault for fault in FAULTS if fault.startswith("kill -9")}
    assert {fault for fault, files in marked().items() if "test_random_kills.py" in files} == kills
