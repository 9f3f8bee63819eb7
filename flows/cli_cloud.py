"""`gensync cloud`: the pipeline on AWS Batch. See docs/cloud.md."""

import enum
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import Group, JsonOption, project_of
from gensync_core.errors import UsageError
from gensync_core.paths import Project

if TYPE_CHECKING:
    from flows.cloud import CloudResult
    from tasks.cloud_submission import CloudSettings, Submission

app = typer.Typer(name="cloud", help="Run stages on AWS Batch instead of here.", no_args_is_help=True)
run_app = typer.Typer(name="run", help="Submit what is out of date, follow it and collect it.", no_args_is_help=True)
app.add_typer(run_app)


class Collect(enum.StrEnum):
    """How results come back."""

    PULL = "pull"
    LOCK = "lock"
    RUN_CACHE = "run-cache"


StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="GENSYNC_STORE", help="s3://bucket/prefix for code and results.", metavar="URL"),
]
NameOption = Annotated[
    str, typer.Option("--name", envvar="GENSYNC_CLOUD_NAME", help="Of the queues and job definitions (the stack's name).")
]
PollOption = Annotated[float, typer.Option("--poll", min=0.1, help="Seconds between two looks at the jobs.")]
CollectOption = Annotated[
    Collect,
    typer.Option(
        "--collect",
        help="pull: take over and fetch the data; lock: take over without data; run-cache: let DVC find the runs again.",
    ),
]
CpuOnlyOption = Annotated[bool, typer.Option("--cpu-only", help="Stages that ask for a GPU go to the CPU queue, too.")]
ResubmitOption = Annotated[int, typer.Option("--resubmit", min=0, help="How often what failed is submitted again, alone.")]


@run_app.command("onboard")
def onboard(
    context: typer.Context,
    videos: Annotated[list[Path], typer.Argument(help="Footage of one new speaker each.", metavar="VIDEO...")],
    store: StoreOption,
    speakers: Annotated[
        list[str] | None,
        typer.Option("--speaker", help="Ids in the videos' order; else the files' names.", metavar="ID"),
    ] = None,
    group: Annotated[Group, typer.Option("--group", help="auto: the cohort as long as no shared model exists.")] = Group.AUTO,
    train: Annotated[bool, typer.Option("--train", help="Train the cohort afterwards.")] = False,
    collect: CollectOption = Collect.PULL,
    resubmit: ResubmitOption = 1,
    name: NameOption = "gensync",
    poll: PollOption = 15.0,
    cpu_only: CpuOnlyOption = False,
) -> None:
    """Take new speakers in, each by workers of its own."""
    project = project_of(context)
    chosen = name_videos(videos, speakers)
    settings = _settings(store, name, poll, cpu_only)
    with _watched() as cloud:
        result = cloud.cloud_onboard(project.root, chosen, settings, group.value, train, collect.value, resubmit)
    _say(result)


@run_app.command("repro")
def repro(
    context: typer.Context,
    store: StoreOption,
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Stages or kinds (joint, evaluate@anna); else all reports.", metavar="[TARGET...]"),
    ] = None,
    collect: CollectOption = Collect.PULL,
    resubmit: ResubmitOption = 1,
    name: NameOption = "gensync",
    poll: PollOption = 15.0,
    cpu_only: CpuOnlyOption = False,
) -> None:
    """Bring stages up to date."""
    project = project_of(context)
    chosen = _targets(project, targets)
    settings = _settings(store, name, poll, cpu_only)
    with _watched() as cloud:
        result = cloud.cloud_repro(project.root, chosen, settings, collect.value, resubmit)
    _say(result)


@app.command("attach")
def attach(context: typer.Context, collect: CollectOption = Collect.PULL) -> None:
    """Follow and collect what was submitted when an earlier command ended before its jobs did."""
    project = project_of(context)
    with _watched() as cloud:
        result = cloud.cloud_attach(project.root, collect.value)
    _say(result)


@app.command("status")
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """What was submitted from this project, how far it is, and what it took."""
    from tasks.cloud_submission import load_all

    submissions = load_all(project_of(context))
    for submission in submissions:
        if not submission.closed:
            _ask_batch(submission)
    if as_json:
        typer.echo(json.dumps([_summary(submission) for submission in submissions], indent=2))
        return
    for summary in map(_summary, submissions):
        typer.echo(f"{summary['submission']}  {'collected' if summary['closed'] else 'open'}")
        for chain in summary["chains"]:
            typer.echo(f"  {chain['scope']:<20} {chain['status'].lower():<10} {', '.join(chain['stages'])}  {chain['message']}")
        for scope, (vcpu_s, gpu_s) in summary["cost"].items():
            typer.echo(f"  {scope}: {vcpu_s:.0f} vCPU-s, {gpu_s:.0f} GPU-s")
    if not submissions:
        typer.echo("nothing was submitted from this project")


@app.command("cancel")
def cancel(context: typer.Context) -> None:
    """End the jobs of this project that have not ended; what they finished is kept, and `attach` collects it."""
    from tasks.cloud_batch import BatchQueues
    from tasks.cloud_submission import load_all

    for submission in load_all(project_of(context)):
        for job in submission.jobs if not submission.closed else []:
            if job.job_id is not None:
                BatchQueues(submission.settings.name).terminate(job.job_id, "gensync cloud cancel")
                typer.echo(f"ended {job.title} ({job.name})")


def name_videos(videos: list[Path], speakers: list[str] | None) -> dict[str, Path]:
    """Speaker id -> footage.

    Raises:
        UsageError: not one id for each video, or the same id twice.
    """
    from tasks.inbox_names import id_from

    ids = speakers or [id_from(video.name) for video in videos]
    if len(ids) != len(videos):
        raise UsageError(f"{len(videos)} videos, but {len(ids)} ids: give --speaker once for each, or not at all")
    if len(set(ids)) != len(ids):
        raise UsageError(f"the same id twice: {', '.join(ids)}; name the speakers with --speaker")
    return {speaker: video.resolve() for speaker, video in zip(ids, videos, strict=True)}


def _targets(project: Project, targets: list[str] | None) -> list[tuple[str, str | None]]:
    registry = project.registry()
    if targets:
        return [(target, None) for target in targets]
    if not registry.ids():
        raise UsageError("nobody is onboarded yet: gensync cloud run onboard VIDEO...")
    cohort = [(f"evaluate@{speaker}", None) for speaker in registry.ids("cohort")]
    # Someone adapted is measured against the shared network as it is.
    return [*cohort, *((f"evaluate@{speaker}", speaker) for speaker in registry.ids("adapted"))]


def _settings(store: str, name: str, poll_s: float, cpu_only: bool) -> "CloudSettings":
    from tasks.cloud_submission import CloudSettings

    return CloudSettings(store=store, name=name, poll_s=poll_s, cpu_only=cpu_only)


@contextmanager
def _watched() -> Iterator[Any]:
    """Show stages while workers run them; gives the module with the flows."""
    from flows import cloud
    from flows.display import open_display

    with open_display("asking AWS Batch") as display:
        cloud.use_watcher(display)
        try:
            yield cloud
        except KeyboardInterrupt:
            typer.echo("the jobs go on: gensync cloud attach follows and collects them, cancel ends them", err=True)
            raise
        finally:
            cloud.use_watcher(None)


def _say(result: "CloudResult") -> None:
    from flows.cloud import cost_lines

    typer.echo(f"{len(result.merged)} stages taken over" if result.merged else "everything is up to date")
    for speaker in result.rejected:
        typer.echo(f"{speaker}: footage rejected, taken out again")
    for line in cost_lines(result.cost):
        typer.echo(line)
    result.raise_failures()


def _ask_batch(submission: "Submission") -> None:
    from tasks.cloud_batch import BatchQueues

    batch = BatchQueues(submission.settings.name)
    for job in submission.jobs:
        if job.job_id is not None:
            for entry, state in zip(job.entries, batch.entries(job.job_id, len(job.entries)), strict=True):
                entry.take(state)


def _summary(submission: "Submission") -> dict[str, Any]:
    return {
        "submission": submission.digest[:12],
        "closed": submission.closed,
        "chains": [
            {"scope": entry.scope, "stages": entry.stages, "status": entry.status, "message": entry.message or entry.reason}
            for _, entry in submission.entries
        ],
        "cost": submission.cost(),
    }
