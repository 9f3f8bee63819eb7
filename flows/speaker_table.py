"""`gensync speakers`: who is in the project or on the way into it, what is being done, since when. Does not start Prefect."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from flows.display import since
from flows.options import JsonOption, project_of
from gensync_core.artefacts import read_json, read_tensors
from gensync_core.errors import ArtefactBroken
from gensync_core.paths import Project
from gensync_core.speakers import Speaker
from tasks.inbox_ledger import Ledger, State, Submission
from tasks.stage_record import FAILED, RUNNING, StageRecord, read_records


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakerRow:
    """What is known about one speaker; None where the stage that knows has not run.

    Attributes:
        id: the speaker; for a file of the inbox whose speaker is not known yet, the file.
        group: `cohort`, `adapted` or `auto`.
        state: `waiting: why`, `onboarding: attempt`, `running STAGE`, `stopped in STAGE`, `failed STAGE: why`, `rejected: why`,
            `broken: why`; else how far the speaker is: `registered`, `ingested`, `coarse`, `trained`, `ready`.
        since: when that began, seconds since the epoch.
        file: in the inbox.
        seconds: length of the footage that is used.
        gaussians: of head and torso together.
        psnr_db: head over true torso, held-out frames.
        sync: mouth-aperture correlation, real minus shuffled sound.
    """

    id: str
    group: str
    state: str
    since: float | None = None
    file: str | None = None
    seconds: float | None = None
    gaussians: int | None = None
    psnr_db: float | None = None
    sync: float | None = None


def all_rows(project: Project) -> list[SpeakerRow]:
    """Everybody who is registered, then files of the inbox that are not."""
    registered = project.registry().speakers
    records = read_records(project)
    rows = {speaker.id: speaker_row(project, speaker, records) for speaker in registered.values()}
    further = []
    for submission in Ledger(project).latest():
        if submission.state in (State.GONE, State.ONBOARDED):
            continue
        speaker = registered.get(submission.speaker or "")
        if speaker is not None and speaker.sha256 == submission.sha256:
            rows[speaker.id] = _on_the_way(rows[speaker.id], submission)
        else:
            further.append(_row_of_file(submission))
    return [*rows.values(), *further]


def speaker_row(project: Project, speaker: Speaker, records: list[StageRecord]) -> SpeakerRow:
    """Look a speaker up in the project's files; a broken one is said, not raised."""
    paths = project.speaker(speaker)
    state, reached = "registered", _modified(paths.raw)
    facts: dict[str, Any] = {}
    try:
        if paths.clip_json.exists():
            state, reached = "ingested", _modified(paths.clip_json)
            facts["seconds"] = read_json(paths.clip_json).get("duration_s")
        for name, path in (("coarse", paths.coarse), ("trained", paths.model)):
            if path.exists():
                state, reached, facts["gaussians"] = name, _modified(path), _count_gaussians(path)
        metrics_file = paths.report / "metrics.json"
        if metrics_file.exists():
            metrics = read_json(metrics_file)
            if state == "trained":
                state, reached = "ready", _modified(metrics_file)
            facts |= {"psnr_db": metrics.get("psnr_head_over_truth"), "sync": metrics.get("aperture_r_gap")}
    except ArtefactBroken as error:
        state = f"broken: {error}"
    row = SpeakerRow(id=speaker.id, group=speaker.group, state=state, since=reached, **facts)
    mine = [record for record in records if record.scope in ([speaker.id, ""] if speaker.group == "cohort" else [speaker.id])]
    return _with_stage(row, mine)


def _with_stage(row: SpeakerRow, records: list[StageRecord]) -> SpeakerRow:
    """What is being done, or what went wrong last, comes before what was reached."""
    running = next((record for record in records if record.is_alive()), None)
    if running is not None:
        return replace(row, state=f"running {running.kind}", since=running.since)
    last = max(records, key=lambda record: record.since, default=None)
    if last is None or last.since < (row.since or 0.0) or last.state not in (RUNNING, FAILED):
        return row
    what = f"stopped in {last.kind}" if last.state == RUNNING else f"failed {last.error}"
    return replace(row, state=what, since=last.since)


def _on_the_way(row: SpeakerRow, submission: Submission) -> SpeakerRow:
    """A registered speaker whose file is still in the inbox."""
    if submission.state is State.RUNNING:
        return replace(row, file=submission.name)
    return replace(_row_of_file(submission), id=row.id, group=row.group)


def _row_of_file(submission: Submission) -> SpeakerRow:
    words = {State.ARRIVING: "waiting", State.RUNNING: "onboarding"}
    return SpeakerRow(
        id=submission.speaker or submission.name,
        group=submission.group,
        state=f"{words.get(submission.state, submission.state.value)}: {submission.reason}",
        since=submission.since,
        file=submission.name,
    )


def _modified(path: Path) -> float | None:
    return path.stat().st_mtime if path.exists() else None


def _count_gaussians(path: Path) -> int:
    arrays, _ = read_tensors(path)
    return sum(len(array) for name, array in arrays.items() if name.rpartition(".")[2] == "means")


def speakers(context: typer.Context, as_json: JsonOption = False) -> None:
    """List who is in the project or in its inbox: state and since when, footage, Gaussians, PSNR, lip sync."""
    project = project_of(context)
    rows = all_rows(project)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    if not rows:
        typer.echo("nobody is onboarded yet: gensync onboard VIDEO --speaker ID")
        return
    table = Table("speaker", "group", "state", "since", box=None)
    for title in ("footage", "Gaussians", "PSNR head", "sync"):
        table.add_column(title, justify="right")
    for row in rows:
        figures = ((row.seconds, "{:.1f} s"), (row.gaussians, "{:,}"), (row.psnr_db, "{:.1f} dB"), (row.sync, "{:.2f}"))
        shown = ("–" if value is None else form.format(value) for value, form in figures)
        table.add_row(row.id, row.group, row.state, "–" if row.since is None else since(row.since), *shown)
    Console().print(table)
