"""Brings stages up to date: one Prefect task per stage of DVC's graph that is dirty or below a dirty one.

No stage is named here. A stage that fails stops what is below it and nothing else: other speakers go on, and the
flow fails at the end with the first error.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFuture

from flows.task_runner import stage_runner
from gensync_core.artefacts import read_json
from gensync_core.paths import Project
from tasks.dvc_project import Node, plan
from tasks.process import CommandFailed, stop_all_on_signal
from tasks.progress_artifact import artifact_key
from tasks.stage_task import StageResult, run_stage


def run_stages(project: Project, targets: Iterable[str], *, scope: str | None = None) -> list[StageResult]:
    """Bring targets up to date; to be called within a flow.

    Args:
        project: the project.
        targets: stage addresses or kinds, see `tasks.dvc_project.plan`.
        scope: only stages of this speaker or job.

    Returns:
        What was run, in DVC's order; empty where nothing had to.

    Raises:
        CommandFailed: the first stage that failed; what did not depend on it was run all the same.
    """
    return _run(project, plan(project, targets, scope=scope))


def run_adapted(project: Project) -> list[StageResult]:
    """Bring everybody who is adapted up to date with the shared network that is there; to be called within a flow.

    Each is planned and run within their own scope: the time for one does not grow with the number of all.

    Returns:
        What was run; empty where nothing had to.

    Raises:
        CommandFailed: the first stage that failed; others went on.
    """
    adapted = project.registry().ids("adapted")
    return _run(project, [node for name in adapted for node in plan(project, [f"evaluate@{name}"], scope=name)])


def _run(project: Project, nodes: Sequence[Node]) -> list[StageResult]:
    futures: dict[str, PrefectFuture[StageResult]] = {}
    with stop_all_on_signal():
        for node in nodes:
            policy = node.policy
            configured: Any = run_stage.with_options(
                name=node.kind, retries=policy.retries, retry_delay_seconds=policy.retry_delay_s, tags=[node.kind]
            )
            futures[node.address] = configured.submit(project.root, node, wait_for=[futures[dep] for dep in node.deps])
        outcomes = {address: _outcome(future) for address, future in futures.items()}
    if outcomes:
        create_table_artifact(key="stages", table=[_row(*item) for item in outcomes.items()])
        _show_reports(project, outcomes)
    failures = [outcome for outcome in outcomes.values() if isinstance(outcome, BaseException)]
    if failures:
        raise next((failure for failure in failures if isinstance(failure, CommandFailed)), failures[0])
    return [outcome for outcome in outcomes.values() if isinstance(outcome, StageResult)]


def _outcome(future: PrefectFuture[StageResult]) -> StageResult | BaseException | None:
    """What became of a stage; None where one above it failed, so that it never started."""
    future.wait()
    return future.result(raise_on_failure=False) if future.state.is_final() else None


def _row(address: str, outcome: StageResult | BaseException | None) -> dict[str, Any]:
    stage, _, speaker = address.partition("@")
    row = {"speaker": speaker or "all", "stage": stage}
    if isinstance(outcome, StageResult):
        return row | {"result": outcome.how, "seconds": round(outcome.seconds, 1)}
    return row | {"result": "not run" if outcome is None else f"failed: {str(outcome)[:200]}", "seconds": None}


def _show_reports(project: Project, outcomes: dict[str, StageResult | BaseException | None]) -> None:
    """A page for each speaker whose report is new: where it lies, and its figures."""
    done = {address.partition("@")[2] for address, outcome in outcomes.items() if isinstance(outcome, StageResult)}
    for name, speaker in project.registry().speakers.items():
        report = project.speaker(speaker).report / "report.html"
        if name not in done or not report.exists():
            continue
        metrics_file = report.with_name("metrics.json")
        metrics = read_json(metrics_file) if metrics_file.exists() else {}
        figures = [f"| {key} | {value:.3f} |" for key, value in metrics.items() if isinstance(value, float)]
        table = "\n".join(["", "| | |", "|---|---|", *figures]) if figures else ""
        create_markdown_artifact(
            key=f"report-{artifact_key(name)}", markdown=f"# {name}\n\nReport: [{report}]({report.as_uri()})\n{table}\n"
        )


@flow(name="pipeline", task_runner=stage_runner())
def pipeline(root: Path, targets: list[str], scope: str | None = None) -> list[StageResult]:
    """Bring targets of the project at `root` up to date, and what they depend on, within `scope`.

    Raises:
        CommandFailed: the first stage that failed.
    """
    return run_stages(Project(root), targets, scope=scope)
