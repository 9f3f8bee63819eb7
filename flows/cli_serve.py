"""Commands for scheduled onboarding: `serve` keeps everything running, `inbox` looks into the inbox, once and here."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.display import since
from flows.options import JsonOption, project_of
from gensync_core.errors import GenSyncError, UsageError
from gensync_core.paths import Project
from tasks.inbox import InboxSettings
from tasks.inbox_ledger import Ledger, State, Submission

InboxOption = Annotated[
    str | None,
    typer.Option("--inbox", help="A folder or s3://bucket/prefix; else the project's folder inbox.", metavar="WHERE"),
]
SettleOption = Annotated[float, typer.Option("--settle", min=0, help="Seconds that a file must not have changed.")]
AttemptsOption = Annotated[int, typer.Option("--attempts", min=1, help="Failed attempts until a file is left alone.")]
BackoffOption = Annotated[float, typer.Option("--backoff", min=0, help="Seconds before the second attempt, doubled each time.")]


def serve(
    context: typer.Context,
    inbox: InboxOption = None,
    every: Annotated[str, typer.Option("--every", help="When the inbox is scanned.", metavar="CRON")] = "*/5 * * * *",
    retrain: Annotated[
        str, typer.Option("--retrain", help="When the cohort is trained; an empty text for never.", metavar="CRON")
    ] = "0 3 * * 0",
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Newcomers onboarded at the same time.")] = 1,
    settle: SettleOption = 30.0,
    attempts: AttemptsOption = 3,
    backoff: BackoffOption = 60.0,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            envvar="GENSYNC_DATABASE_URL",
            show_envvar=True,
            help="PostgreSQL for the Prefect server; else SQLite in the project. With a password, use the variable.",
            metavar="URL",
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Of the Prefect server; another one if taken.")] = 4200,
) -> None:
    """Onboard what is put into the inbox, train the cohort every week, and take synthesis jobs; until Ctrl-C.

    Uses the Prefect server that PREFECT_API_URL names, or starts one.
    """
    project = project_of(context)
    patience = InboxSettings(settle_s=settle, max_attempts=attempts, backoff_s=backoff)
    address = _address(project, inbox)
    from flows.deployments import ServeSettings
    from flows.serving import serve_project

    settings = ServeSettings(
        root=project.root, inbox=address, scan_cron=every, retrain_cron=retrain, at_once=at_once, patience=patience
    )
    serve_project(settings, database_url, typer.echo, port=port)


def look_once(
    context: typer.Context,
    inbox: InboxOption = None,
    once: Annotated[bool, typer.Option("--once", help="Scan now and onboard here what is due.")] = False,
    settle: SettleOption = 30.0,
    attempts: AttemptsOption = 3,
    backoff: BackoffOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Show what became of the files of the inbox; with --once, scan it first and onboard what is due."""
    project = project_of(context)
    address = _address(project, inbox)
    failed: list[str] = []
    if once:
        from flows.cli import watched
        from flows.inbox import scan_and_onboard

        patience = InboxSettings(settle_s=settle, max_attempts=attempts, backoff_s=backoff)
        with watched("looking through the inbox"):
            failed = scan_and_onboard(project.root, address, patience)
    rows = [row for row in Ledger(project).latest() if row.state is not State.GONE]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    elif rows:
        Console().print(_table(rows))
    else:
        typer.echo(f"nothing was put into {address} yet")
    if failed:
        raise GenSyncError(f"failed: {', '.join(failed)}; another attempt is made by a later scan")


def _table(rows: list[Submission]) -> Table:
    table = Table("file", "speaker", "state", "since", "why", box=None)
    for row in rows:
        table.add_row(row.name, row.speaker or "–", row.state.value, since(row.since), row.reason)
    return table


def _address(project: Project, inbox: str | None) -> str:
    """The inbox's address; the project's own folder is made.

    Raises:
        UsageError: the folder is not there.
    """
    if inbox is None:
        folder = project.root / "inbox"
        folder.mkdir(exist_ok=True)
        return str(folder)
    if "://" in inbox:
        return inbox
    folder = Path(inbox).resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder}: the inbox is no folder; make it, or name another one")
    return str(folder)
