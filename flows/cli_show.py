"""Commands that only look: `check`, `speakers`, `doctor`. None of them starts Prefect."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows import machine
from gensync_core.artefacts import read_json, read_tensors
from gensync_core.errors import ArtefactBroken, FootageRejected, UsageError
from gensync_core.paths import Project
from gensync_core.speakers import Speaker
from tasks.footage import check_footage, raise_if_rejected
from tasks.workspace import find_project

_MOST_TIMES = 6

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakerRow:
    """What is known about one speaker; None where the stage that knows has not run.

    Attributes:
        id: the speaker.
        group: `cohort` or `adapted`.
        state: `registered`, `ingested`, `coarse`, `trained`, `evaluated`, or `broken: ...`.
        seconds: length of the footage that is used.
        gaussians: of head and torso together.
        psnr_db: head over true torso, held-out frames.
        sync: mouth-aperture correlation, real minus shuffled sound.
    """

    id: str
    group: str
    state: str
    seconds: float | None = None
    gaussians: int | None = None
    psnr_db: float | None = None
    sync: float | None = None


def speaker_row(project: Project, speaker: Speaker) -> SpeakerRow:
    """Look a speaker up in the project's files; a broken one is said, not raised."""
    paths = project.speaker(speaker)
    state = "registered"
    facts: dict[str, Any] = {}
    try:
        if paths.clip_json.exists():
            state, facts["seconds"] = "ingested", read_json(paths.clip_json).get("duration_s")
        for name, path in (("coarse", paths.coarse), ("trained", paths.model)):
            if path.exists():
                state, facts["gaussians"] = name, _count_gaussians(path)
        metrics_file = paths.report / "metrics.json"
        if metrics_file.exists():
            metrics = read_json(metrics_file)
            state = "evaluated" if state == "trained" else state
            facts |= {"psnr_db": metrics.get("psnr_head_over_truth"), "sync": metrics.get("aperture_r_gap")}
    except ArtefactBroken as error:
        state = f"broken: {error}"
    return SpeakerRow(id=speaker.id, group=speaker.group, state=state, **facts)


def _count_gaussians(path: Path) -> int:
    arrays, _ = read_tensors(path)
    return sum(len(array) for name, array in arrays.items() if name.rpartition(".")[2] == "means")


def speakers(context: typer.Context, as_json: JsonOption = False) -> None:
    """List who is in the project: state, seconds of footage, Gaussians, PSNR, lip sync."""
    project = find_project(context.obj or Path.cwd())
    rows = [speaker_row(project, speaker) for speaker in project.registry().speakers.values()]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    if not rows:
        typer.echo("nobody is onboarded yet: gensync onboard VIDEO --speaker ID")
        return
    table = Table("speaker", "group", "state", box=None)
    for title in ("footage", "Gaussians", "PSNR head", "sync"):
        table.add_column(title, justify="right")
    for row in rows:
        figures = ((row.seconds, "{:.1f} s"), (row.gaussians, "{:,}"), (row.psnr_db, "{:.1f} dB"), (row.sync, "{:.2f}"))
        shown = ("–" if value is None else form.format(value) for value, form in figures)
        table.add_row(row.id, row.group, row.state, *shown)
    Console().print(table)


_SCORES = (("psnr_head_over_truth", "PSNR head", ".2f"), ("lmd_px512", "LMD", ".2f"), ("aperture_r_gap", "sync", ".2f"))


def finetuned(project: Project, as_json: bool) -> None:
    """Print everybody's held-out figures before and after fine-tuning, and how the fine-tuned model is put into use.

    Raises:
        ArtefactBroken: the figures are missing or damaged.
    """
    scores = read_json(project.finetuned_scores)
    if as_json:
        typer.echo(json.dumps(scores, indent=2))
        return
    table = Table("speaker", "group", box=None)
    for _, title, _ in _SCORES:
        table.add_column(title, justify="right")
    for name, row in scores["speakers"].items():
        pairs = ((row["before"].get(key), row["after"].get(key), form) for key, _, form in _SCORES)
        shown = ("–" if None in (old, new) else f"{old:{form}} -> {new:{form}}" for old, new, form in pairs)
        table.add_row(name, row["group"], *shown)
    Console().print(table)
    old, new = (path.relative_to(project.root) for path in (project.model_folder, project.finetuned_folder))
    typer.echo(
        f"the fine-tuned model is in {new}; {old} is in use, as before. To use the fine-tuned one instead, in {project.root}:\n"
        f"  cp -r {old} models/before\n"
        f"  cp -r {new}/cohort {new}/adapted {new}/shared.* {old}/\n"
        "  dvc commit --force joint adapt\n"
        f"  echo 'finetuned: []' > {project.finetune_file.name}"
    )


def check(folder: Path, video: Path, as_json: bool) -> None:
    """Print what the footage gate found with the parameters of `folder`.

    Raises:
        FootageRejected: the footage is not fit for use; with `as_json` the exit code alone says so.
        CommandFailed: it could not be checked.
    """
    report = check_footage(folder, video)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        raise typer.Exit(FootageRejected.exit_code if report["rejected"] else 0)
    if report["findings"]:
        table = Table("", "code", "where", "what", box=None)
        for finding in report["findings"]:
            table.add_row(finding["severity"], finding["code"], _clock_times(finding["seconds"]), finding["message"])
        Console().print(table)
    raise_if_rejected(report)
    typer.echo(f"{video}: fit for use")


def _clock_times(seconds: list[float]) -> str:
    """The first few as minutes and seconds."""
    shown = [f"{int(time_s // 60)}:{time_s % 60:04.1f}" for time_s in seconds[:_MOST_TIMES]]
    return ", ".join([*shown, "..."] if len(seconds) > _MOST_TIMES else shown)


def doctor(context: typer.Context, as_json: JsonOption = False) -> None:
    """Say what is installed, which device and renderer would run, and what is missing with the way to get it."""
    try:
        folder = find_project(context.obj or Path.cwd()).root
    except UsageError:
        folder = Path.cwd()
    items = machine.examine(folder)
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in items], indent=2))
    else:
        table = Table("", "what", "found", "what to do", box=None)
        for item in items:
            mark = "[green]ok[/]" if item.ok else "[red]missing[/]" if item.needed else "[yellow]absent[/]"
            table.add_row(mark, item.name, item.found, "" if item.ok else item.remedy)
        Console().print(table)
    if any(item.needed and not item.ok for item in items):
        raise typer.Exit(1)
