"""The cohort: joint training of all its speakers, then a report for each."""

from pathlib import Path

from prefect import flow

from flows.pipeline import run_stages
from flows.task_runner import stage_runner
from gensync_core.paths import Project
from tasks import registration
from tasks.stage_task import StageResult


@flow(name="train_cohort", task_runner=stage_runner())
def train_cohort(root: Path) -> list[StageResult]:
    """Train the cohort of the project at `root` and evaluate it; returns what had to be run.

    Raises:
        UsageError: the cohort is empty.
        CommandFailed: the first stage that failed.
    """
    project = Project(root)
    return run_stages(project, registration.cohort_targets(project))
