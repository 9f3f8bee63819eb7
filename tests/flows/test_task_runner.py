"""One setting sends stages to Dask's workers; what they make is what threads make."""

import os
from collections.abc import Callable

import pytest
import yaml

from flows.task_runner import STAGES_AT_ONCE, VARIABLE, stage_runner
from gensync_core.errors import UsageError
from gensync_core.paths import Project
from tasks.process import CommandFailed, run_command

Enlist = Callable[..., None]
Executed = Callable[[Project], list[str]]

# Every stage notes its ancestors, and gives the other worker time to take the next one.
NOTING = """
import psutil as _psutil
with open("ancestors.log", "a") as _log:
    _log.write(" ".join(str(one.pid) for one in _psutil.Process().parents()) + "\\n")
time.sleep(1)
"""


def workers_of(project: Project) -> set[str]:
    """The direct children of this process below which stages ran."""
    lines = (project.root / "ancestors.log").read_text().splitlines()
    return {pids[pids.index(str(os.getpid())) - 1] for pids in (line.split() for line in lines)}


@pytest.mark.usefixtures("prefect_server")
def test_two_workers_of_a_local_dask_cluster_share_the_stages(
    toy: Project, enlist: Enlist, executed: Executed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.pipeline import pipeline

    monkeypatch.setenv(VARIABLE, "2")
    (toy.root / "toy.py").write_text((toy.root / "toy.py").read_text() + NOTING)
    for name, text in {"alice": "A", "bob": "flaky coarse", "carl": "broken coarse"}.items():
        enlist(name, text)
    on_dask = pipeline.with_options(task_runner=stage_runner())
    with pytest.raises(CommandFailed, match="coarse@carl: artefact is damaged") as caught:
        on_dask(toy.root, ["coarse"])
    assert caught.value.exit_code == 4
    ran = executed(toy)
    assert sorted(ran) == sorted(
        [*(f"{stage}@{name}" for name in ("alice", "bob", "carl") for stage in ("ingest", "coarse")), "coarse@bob"]
    )
    assert all(ran.index(f"ingest@{name}") < ran.index(f"coarse@{name}") for name in ("alice", "bob", "carl"))
    assert len(workers_of(toy)) == 2

    lock = yaml.safe_load((toy.root / "dvc.lock").read_text())
    names = [f"{stage}@{name}" for stage in ("ingest", "coarse") for name in ("alice", "bob")]
    assert run_command(["dvc", "repro", *names], cwd=toy.root).exit_code == 0
    assert len(executed(toy)) == len(ran), "DVC finds done what the workers did"
    assert yaml.safe_load((toy.root / "dvc.lock").read_text()) == lock


def test_without_the_setting_stages_run_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert stage_runner()._max_workers == STAGES_AT_ONCE


def test_an_address_names_a_cluster_that_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "tcp://scheduler:8786")
    assert stage_runner().address == "tcp://scheduler:8786"


@pytest.mark.parametrize("value", ["many", "0", "-2", "scheduler:8786"])
def test_a_setting_that_is_neither_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(UsageError, match="expected a number of workers, or a scheduler's address"):
        stage_runner()


def test_the_command_line_says_it_in_one_line(toy: Project, enlist: Enlist) -> None:
    enlist("alice", "A")
    outcome = run_command(["gensync", "train"], cwd=toy.root, env={VARIABLE: "many"})
    assert outcome.exit_code == 2
    assert "expected a number of workers" in outcome.tail[-1]
    assert "Traceback" not in "\n".join(outcome.tail)
