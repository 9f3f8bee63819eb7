"""Fine-tuning: put it into the graph, run its stage on the model as it is."""

from pathlib import Path

from prefect import flow

from flows.pipeline import run_stages
from flows.task_runner import stage_runner
from gensync_core.paths import COHORT_NAME, Project
from tasks import registration
from tasks.limits import writing
from tasks.stage_task import StageResult


@flow(name="finetune", task_runner=stage_runner())
def finetune(root: Path) -> list[StageResult]:
    """Fine-tune the model in use, as it is, into a folder of its own: nothing above is run, and nothing above changes.

    From then on the fine-tuned model is part of the graph: `dvc repro` keeps it up to date.

    Returns:
        What was run; empty where the fine-tuned model is up to date.

    Raises:
        UsageError: nobody is adapted, or somebody is not trained yet.
        CommandFailed: the stage failed; where it was asked for the first time, it is not in the graph then.
    """
    project = Project(root)
    with writing():
        is_new = registration.ask_for_finetuning(project)
    try:
        return run_stages(project, ["finetune"], scope=COHORT_NAME)
    except BaseException:
        if is_new:
            with writing():
                registration.forget_finetuning(project)
        raise
