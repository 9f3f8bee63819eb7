"""The `gensync` command. Exit codes: 0 done, 2 usage, 3 footage or input rejected, 4 artefact broken, 1 anything else."""

import enum
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from flows import cli_cloud, cli_serve, cli_show, speaker_table
from flows.display import Display, duration, open_display
from flows.options import Group, JsonOption, project_of
from gensync_core import __version__
from gensync_core.artefacts import read_json
from gensync_core.errors import FootageRejected, GenSyncError, UsageError
from gensync_core.paths import Project
from gensync_core.progress import parse_line
from tasks import registration
from tasks.process import raise_for, run_command
from tasks.workspace import source_root

# What typer makes of Ctrl-C.
_INTERRUPTED = 130

app = typer.Typer(
    name="gensync",
    help="Talking-head avatars of many speakers: from footage to lip-synced video.\n\n"
    "Start with [bold]gensync demo[/], or with your own footage: check, onboard, train, synth.",
    epilog="Exit codes: 0 done, 2 usage, 3 footage or input rejected, 4 artefact broken, 1 anything else.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class SplatFormat(enum.StrEnum):
    """Formats that a head's Gaussians are written in."""

    PLY = "ply"
    SPLAT = "splat"
    COMPRESSED = "compressed"


SpeakerOption = Annotated[str, typer.Option("--speaker", help="Id of the speaker.", metavar="ID")]
Video = Annotated[Path, typer.Argument(help="Footage: any container, frame rate and size, with sound.", metavar="VIDEO")]


@app.callback()
def settings(
    context: typer.Context,
    project: Annotated[
        Path | None, typer.Option("--project", help="Project folder; else the one that the working directory lies in.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every line that stages and Prefect write.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Hold what all commands share."""
    if version:
        typer.echo(f"gensync {__version__}")
        raise typer.Exit
    if verbose:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
    context.obj = project


@contextmanager
def watched(waiting_for: str) -> Iterator[Display]:
    """Show stages while they run."""
    from tasks.stage_task import use_watcher

    with open_display(waiting_for) as display:
        use_watcher(display)
        try:
            yield display
        finally:
            use_watcher(None)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the demo's project is made.")] = Path("demo"),
) -> None:
    """Run the whole chain on two sample speakers; minutes on two cores. Run again, it goes on where it stopped."""
    started = time.monotonic()
    with watched("making two sample speakers") as display:
        from flows.demo import demo as run

        result = run(folder, display)
    typer.echo(f"\n{result.num_stages_run} stages in {duration(time.monotonic() - started)}")
    for name, video in result.videos.items():
        typer.echo(f"{name}\n  video   {video}\n  report  {result.reports[name]}")


@app.command()
def sample(
    name: Annotated[str, typer.Option("--name", help="astronaut or hopper.")],
    out: Annotated[Path, typer.Option("--out", help="Video to write; the ground truth lies beside it.")],
    seconds: Annotated[float, typer.Option("--seconds", min=2.0, help="Length.")] = 20.0,
) -> None:
    """Make footage of a sample speaker, animated from a public-domain portrait, with the truth it was made from."""
    arguments = ["sample", "--name", name, "--out", str(out.resolve()), "--seconds", str(seconds)]
    _core(arguments, Path.cwd(), f"making {out}")
    typer.echo(out)


@app.command()
def check(context: typer.Context, video: Video, as_json: JsonOption = False) -> None:
    """Say whether footage is fit for use, and what would be mended or warned about."""
    cli_show.check(_project_or_source(context), video, as_json)


@app.command()
def onboard(
    context: typer.Context,
    video: Video,
    speaker: SpeakerOption,
    group: Annotated[
        Group, typer.Option("--group", help="auto: the cohort as long as no shared model exists, adapted afterwards.")
    ] = Group.AUTO,
    train: Annotated[bool, typer.Option("--train", help="Train the cohort afterwards.")] = False,
) -> None:
    """Take a new speaker in: check the footage, copy it, run the speaker's stages."""
    project = project_of(context)
    registration.check_new_speaker(project, speaker)
    registration.choose_group(project, group.value)
    if not video.is_file():
        raise FootageRejected(f"{video}: no such file")
    with watched(f"checking {video.name}"):
        from flows.onboard_speaker import onboard_speaker

        chosen = onboard_speaker(project.root, video.resolve(), speaker, group.value, train)
    if chosen == "adapted" or train:
        typer.echo(f"{speaker} is ready; report: {_report(project, speaker)}")
    else:
        typer.echo(f"{speaker} is in the cohort; next: gensync train")


@app.command()
def train(context: typer.Context) -> None:
    """Train the shared network on the whole cohort and evaluate every speaker of it."""
    project = project_of(context)
    registration.cohort_targets(project)
    with watched("starting"):
        from flows.train_cohort import train_cohort

        results = train_cohort(project.root)
    typer.echo("trained" if results else "everything is up to date")
    for speaker in project.registry().ids("cohort"):
        typer.echo(f"{speaker}: {_report(project, speaker)}")


@app.command()
def synth(
    context: typer.Context,
    speaker: SpeakerOption,
    audio: Annotated[Path, typer.Option("--audio", help="Speech: wav, flac, mp3, m4a, or a video's sound.", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", help="Video to write (.mp4).", metavar="FILE.mp4")],
) -> None:
    """Render a trained speaker saying what is in an audio file."""
    project = project_of(context)
    project.registry().get(speaker)
    if not audio.is_file():
        raise FootageRejected(f"{audio}: no such file")
    with watched("starting"):
        from flows.synthesize import synthesize

        synthesize(project.root, speaker, audio.resolve(), out.resolve())
    typer.echo(out)


@app.command()
def evaluate(
    context: typer.Context,
    speaker: Annotated[str | None, typer.Option("--speaker", help="Id of the speaker; else everybody.", metavar="ID")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure trained speakers on the end of their footage, which training never saw, and write the reports."""
    project = project_of(context)
    registry = project.registry()
    chosen = [registry.get(speaker).id] if speaker else registry.ids()
    if not chosen:
        raise UsageError("nobody is onboarded yet: gensync onboard VIDEO --speaker ID")
    with watched("starting"):
        from flows.pipeline import pipeline

        # Someone adapted is measured against the shared network as it is; the cohort with whatever it takes to be up to date.
        scope = speaker if speaker and registry.get(speaker).group == "adapted" else None
        pipeline(project.root, [f"evaluate@{name}" for name in chosen], scope)
    if as_json:
        metrics = {name: read_json(project.speaker(registry.get(name)).report / "metrics.json") for name in chosen}
        typer.echo(json.dumps(metrics, indent=2))
        return
    for name in chosen:
        typer.echo(f"{name}: {_report(project, name)}")


@app.command()
def finetune(context: typer.Context, as_json: JsonOption = False) -> None:
    """Train the shared network a little further on adapted speakers and the cohort, into a model beside the one in use."""
    project = project_of(context)
    registration.check_finetuning(project)
    with watched("starting"):
        from flows.finetune import finetune as run

        run(project.root)
    cli_show.finetuned(project, as_json)


@app.command()
def export(
    context: typer.Context,
    speaker: SpeakerOption,
    out: Annotated[Path, typer.Option("--out", help="File to write (.ply, .splat, .compressed.ply).", metavar="FILE")],
    form: Annotated[
        SplatFormat,
        typer.Option(
            "--format",
            help="ply: exact, all viewers; splat: 32 bytes a Gaussian, antimatter15's viewer; compressed: 16, SuperSplat.",
        ),
    ] = SplatFormat.PLY,
) -> None:
    """Write a speaker's head as a file that splat viewers open."""
    project = project_of(context)
    project.registry().get(speaker)
    arguments = ["export", "--speaker", speaker, "--out", str(out.resolve()), "--format", form.value]
    _core(arguments, project.root, f"writing {out}")
    typer.echo(out)


app.command("speakers")(speaker_table.speakers)
app.command("doctor")(cli_show.doctor)
app.add_typer(cli_cloud.app)
app.command("serve")(cli_serve.serve)
app.command("inbox")(cli_serve.look_once)


def _report(project: Project, speaker: str) -> Path:
    return project.speaker(project.registry().get(speaker)).report / "report.html"


def _project_or_source(context: typer.Context) -> Path:
    """Folder whose parameters count: the project's, else those that GenSync came with."""
    try:
        return project_of(context).root
    except UsageError:
        if context.obj is not None:
            raise
        return source_root()


def _core(arguments: list[str], folder: Path, what: str) -> None:
    """Run a command of the core with its progress shown."""
    with open_display(what) as display:
        display.started(what)

        def on_line(line: str) -> None:
            if (tick := parse_line(line)) is not None:
                display.ticked(what, tick)

        command = [sys.executable, "-m", "gensync_core", *arguments]
        outcome = run_command(command, cwd=folder, env={"GENSYNC_PROGRESS": "lines"}, on_line=on_line)
        display.ended(what, "failed" if outcome.exit_code else "executed", outcome.seconds)
    raise_for(outcome, arguments[0])


def main() -> None:
    """Entry point: what can be explained is said in one line, with the exit code that it has."""
    # An ordinary exit instead of sudden death: whatever was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except GenSyncError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != _INTERRUPTED:
            raise
        _fail("interrupted; what is done is kept", 1)


def _fail(message: str, exit_code: int) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
