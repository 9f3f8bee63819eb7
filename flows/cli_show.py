"""Commands that only look: `check`, `doctor`, and what fine-tuning brought. None of them starts Prefect."""

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from flows import machine
from flows.options import JsonOption, project_of
from gensync_core.artefacts import read_json
from gensync_core.errors import FootageRejected, UsageError
from gensync_core.paths import Project
from tasks.footage import check_footage, raise_if_rejected

_MOST_TIMES = 6


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
        folder = project_of(context).root
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
