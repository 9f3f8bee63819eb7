"""Stages side by side, the same stage twice at once, what runs after a change: every entry of the lock is checked."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_table import FaultLog
from lock_check import damaged_objects, md5_of, outs_missing, wrong_entries
from prefect.task_runners import ThreadPoolTaskRunner
from slow_project import TARGETS, expected_outs, make_slow_project, set_gain

from gensync_core.paths import Project
from tasks.dvc_project import add_file, plan, read_lock, reproduce
from tasks.process import CommandFailed, run_command
from tasks.registration import remove_speaker

pytestmark = pytest.mark.usefixtures("prefect_server")
Enlist = Callable[..., None]
Executed = Callable[[Project], list[str]]
SPEAKERS = ("anna", "bob", "carl", "dora", "emil", "fritz")


def runs(project: Project) -> list[str]:
    log = project.root / "runs.log"
    return sorted(log.read_text().split()) if log.exists() else []


def wrong_in(project: Project) -> list[str]:
    """Whatever is not as it has to be in a slow project that is done."""
    outs = expected_outs(project)
    lock = read_lock(project)
    found = [path for path, text in outs.items() if (project.root / path).read_text() != text]
    found += wrong_entries(project) + damaged_objects(project) + outs_missing(project, lock)
    return found if len(lock) == len(outs) else [*found, f"entries of {sorted(lock)} only"]


@pytest.mark.slow
@pytest.mark.fault("parallel runs")
def test_stages_side_by_side_leave_every_entry_of_the_lock_right(tmp_path: Path, fault_log: FaultLog) -> None:
    from flows.pipeline import pipeline

    project = make_slow_project(tmp_path / "project", SPEAKERS)
    runner: Any = ThreadPoolTaskRunner(max_workers=len(SPEAKERS))
    side_by_side = pipeline.with_options(task_runner=runner)
    for gain in (0, 1):
        set_gain(project, gain)
        started = time.monotonic()
        results = side_by_side(project.root, TARGETS)
        wrong = wrong_in(project)
        seconds = [time.monotonic() - started]
        fault_log.add("parallel runs", repetitions=len(results), lost=len(wrong), recovered_s=seconds)
        assert wrong == []
        assert sorted(result.address for result in results) == sorted(read_lock(project))
        assert len(runs(project)) == (gain + 1) * (2 * len(SPEAKERS) + 1)


def test_the_check_of_the_lock_sees_what_is_wrong(tmp_path: Path) -> None:
    project = make_slow_project(tmp_path / "project", ["anna"])
    for node in plan(project, ["joint"]):
        reproduce(project, node)
    lock = read_lock(project)
    assert (wrong_entries(project), damaged_objects(project), outs_missing(project, lock)) == ([], [], [])
    clip = project.root / "data/speakers/cohort/anna/clip"
    stored = project.root / ".dvc/cache/files/md5" / md5_of(clip)[:2] / md5_of(clip)[2:]
    stored.chmod(0o644)
    stored.write_text("damaged")
    clip.unlink()
    clip.write_text("other")
    assert len(damaged_objects(project)) == 1
    # As an out of its own stage, and within the folder that the joint stage reads.
    assert sorted(said.partition(":")[0] for said in wrong_entries(project)) == ["ingest@anna", "joint"]
    stored.unlink()
    assert [said.partition(":")[0] for said in outs_missing(project, lock)] == ["ingest@anna"]


@pytest.mark.fault("same stage twice at once")
def test_the_same_stage_twice_at_once_runs_once(tmp_path: Path, fault_log: FaultLog) -> None:
    project = make_slow_project(tmp_path / "project", ["anna"])
    (node,) = plan(project, ["ingest"])
    ended: list[str] = []

    def run() -> None:
        try:
            ended.append(reproduce(project, node))
        except CommandFailed as error:
            ended.append(f"refused: {error}" if error.retryable else f"given up: {error}")

    started = time.monotonic()
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended.count("executed") == 1, ended
    assert all(how in ("executed", "unchanged") or how.startswith("refused: ingest@anna: busy") for how in ended), ended
    assert runs(project) == ["ingest@anna"]
    assert reproduce(project, node) == "unchanged", "whoever was refused finds it done at the next attempt"
    wrong = wrong_entries(project) + damaged_objects(project)
    fault_log.add("same stage twice at once", repetitions=2, lost=len(wrong), recovered_s=[time.monotonic() - started])
    assert wrong == []


@pytest.mark.slow
@pytest.mark.fault("same stage twice at once")
def test_two_flows_over_the_same_stages_do_the_work_once(tmp_path: Path) -> None:
    from flows.pipeline import pipeline

    project = make_slow_project(tmp_path / "project", ["anna", "bob"])
    text = (project.root / "dvc.yaml").read_text()
    (project.root / "dvc.yaml").write_text(
        text.replace("retry_delay_s: 0", "retry_delay_s: 5").replace("retries: 1", "retries: 2")
    )
    other = threading.Thread(target=pipeline, args=(project.root, TARGETS), kwargs={"return_state": True})
    other.start()
    pipeline(project.root, TARGETS)
    other.join()
    assert runs(project) == sorted(read_lock(project)), "each stage once"
    assert wrong_in(project) == []


@pytest.mark.slow
@pytest.mark.fault("speaker added, edited, removed")
def test_a_change_of_one_speaker_runs_exactly_the_stages_that_it_concerns(
    toy: Project, enlist: Enlist, executed: Executed
) -> None:
    from flows.pipeline import pipeline

    def ran() -> list[str]:
        before = len(executed(toy))
        pipeline(toy.root, ["evaluate"])
        # DVC keeps the entries of stages that are not in the graph any more.
        left = set(toy.registry().ids())
        assert [said for said in wrong_entries(toy) if said.partition(":")[0].partition("@")[2] in {"", *left}] == []
        return sorted(stage.removesuffix("@cohort") for stage in executed(toy)[before:])

    def own(name: str) -> list[str]:
        return [f"{kind}@{name}" for kind in ("coarse", "evaluate", "ingest")]

    enlist("anna", "anna")
    enlist("bob", "bob")
    assert ran() == sorted([*own("anna"), *own("bob"), "joint"])
    assert ran() == []
    enlist("carl", "carl", group="adapted")
    assert ran() == own("carl"), "a newcomer disturbs nobody"
    enlist("carl", "carl again", group="adapted")
    assert ran() == own("carl")
    enlist("anna", "anna again")
    assert ran() == sorted([*own("anna"), "evaluate@bob", "evaluate@carl", "joint"])
    remove_speaker(toy, "bob")
    assert ran() == ["evaluate@anna", "evaluate@carl", "joint"]
    remove_speaker(toy, "carl")
    assert ran() == []


@pytest.mark.slow
@pytest.mark.fault("second workspace")
def test_a_second_workspace_with_the_same_remote_executes_nothing(
    toy: Project, enlist: Enlist, executed: Executed, tmp_path: Path
) -> None:
    from flows.pipeline import pipeline

    def dvc(project: Project, *arguments: str) -> None:
        done = run_command(["dvc", *arguments], cwd=project.root)
        assert done.exit_code == 0, done.tail

    for name in ("anna", "bob"):
        enlist(name, name)
        add_file(toy, toy.raw(name, ".mp4"))
    dvc(toy, "remote", "add", "--default", "store", str(tmp_path / "store"))
    pipeline(toy.root, ["evaluate"])
    dvc(toy, "push", "--run-cache")
    lock = read_lock(toy)

    for keeps_lock in (True, False):
        folder = tmp_path / f"second-{keeps_lock}"
        made = shutil.ignore_patterns("cache", "tmp", ".site", ".gensync", "models", "reports", "speakers", "*.mp4", "runs.log")
        shutil.copytree(toy.root, folder, ignore=made)
        config = folder / ".dvc" / "config"
        config.write_text(config.read_text().replace(str(toy.root), str(folder)))
        second = Project(folder)
        if keeps_lock:
            dvc(second, "pull")
            assert pipeline(folder, ["evaluate"]) == []
        else:
            (folder / "dvc.lock").unlink()
            dvc(second, "pull", "--run-cache", *(str(path.relative_to(folder)) for path in folder.rglob("*.mp4.dvc")))
            # The cache holds what the run cache names only once it was asked for.
            for node in plan(second, ["evaluate"]):
                assert reproduce(second, node, pull=True, execute=False) == "run-cache"
        assert (read_lock(second), executed(second)) == (lock, [])
        assert wrong_entries(second) == []
        for name in ("anna", "bob"):
            assert (folder / "reports" / name / "report.html").read_text() == toy.shared.read_text()
