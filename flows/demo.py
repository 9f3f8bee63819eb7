"""The whole chain on two sample speakers: from two portraits to two talking videos and their reports.

Everything lies in one folder, a project of its own; a second run finds what is done and executes nothing.
"""

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from flows.onboard_speaker import register
from flows.pipeline import run_stages
from flows.task_runner import STAGES_AT_ONCE, stage_runner
from gensync_core.paths import Project
from gensync_core.progress import parse_line
from tasks import registration
from tasks.process import raise_for, run_command, stop_all_on_signal
from tasks.stage_task import StageWatcher
from tasks.workspace import create_workspace, source_root

SPEECH_SECONDS = 8
SPEECH_SEED = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSpeaker:
    """A sample speaker: the portrait it is animated from, the voice that it is trained on, and the voice it is driven with."""

    name: str
    seconds: float
    voice: str


SPEAKERS = (
    DemoSpeaker(name="astronaut", seconds=20, voice="a"),
    DemoSpeaker(name="hopper", seconds=20, voice="b"),
)

# Small and short, so that the whole chain fits into ten minutes on two cores.
PARAMS: dict[str, dict[str, Any]] = {
    "ingest": {"resolution": 128},
    "joint": {"steps": 800, "torso_steps": 200},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What the demo leaves: a video and a report for each speaker, and how many stages had to run."""

    videos: dict[str, Path]
    reports: dict[str, Path]
    num_stages_run: int


def make_inputs(folder: Path, watcher: StageWatcher | None = None) -> None:
    """Make the sample speakers' footage and the speech that they are driven with, where absent.

    Raises:
        CommandFailed: a sample could not be made.
    """
    commands: dict[str, list[str]] = {}
    for speaker in SPEAKERS:
        video, speech = _footage(folder, speaker), _speech(folder, speaker)
        if not video.exists():
            options = {"name": speaker.name, "out": video, "seconds": speaker.seconds}
            commands[f"sample {speaker.name}"] = ["sample", *_as_arguments(options)]
        if not speech.exists():
            options = {"out": speech, "seconds": SPEECH_SECONDS, "seed": SPEECH_SEED, "voice": speaker.voice}
            commands[f"speech {speaker.name}"] = ["speech", *_as_arguments(options)]
    with stop_all_on_signal(), ThreadPoolExecutor(max_workers=STAGES_AT_ONCE) as pool:
        running = [pool.submit(_run_core, what, arguments, folder, watcher) for what, arguments in commands.items()]
        for future in running:
            future.result()


def _as_arguments(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def _run_core(what: str, arguments: list[str], folder: Path, watcher: StageWatcher | None) -> None:
    def on_line(line: str) -> None:
        if watcher is not None and (tick := parse_line(line)) is not None:
            watcher.ticked(what, tick)

    if watcher is not None:
        watcher.started(what)
    outcome = run_command(
        [sys.executable, "-m", "gensync_core", *arguments], cwd=folder, env={"GENSYNC_PROGRESS": "lines"}, on_line=on_line
    )
    if watcher is not None:
        watcher.ended(what, "failed" if outcome.exit_code else "executed", outcome.seconds)
    raise_for(outcome, what)


@flow(name="demo", task_runner=stage_runner())
def run_demo(root: Path) -> DemoResult:
    """Onboard both samples, train, evaluate and synthesise; the inputs are there already.

    Raises:
        CommandFailed: the first stage that failed.
    """
    project = Project(root)
    jobs: dict[str, str] = {}
    for speaker in SPEAKERS:
        if speaker.name not in project.registry().speakers:
            register(project, _footage(root, speaker), speaker.name, "cohort")
        jobs[speaker.name], _ = registration.add_job(project, speaker.name, _speech(root, speaker))
    results = run_stages(project, [*registration.cohort_targets(project), *(f"synth@{job}" for job in jobs.values())])
    registry = project.registry()
    return DemoResult(
        videos={name: project.render(job) for name, job in jobs.items()},
        reports={name: project.speaker(registry.get(name)).report / "report.html" for name in jobs},
        num_stages_run=len(results),
    )


def demo(folder: Path, watcher: StageWatcher | None = None) -> DemoResult:
    """Make the demo's project in `folder`, its inputs, and run it.

    Raises:
        CommandFailed: a sample or a stage failed.
    """
    project = create_workspace(folder, source_root(), PARAMS)
    make_inputs(project.root, watcher)
    return run_demo(project.root)


def _footage(folder: Path, speaker: DemoSpeaker) -> Path:
    return folder / "samples" / f"{speaker.name}.mp4"


def _speech(folder: Path, speaker: DemoSpeaker) -> Path:
    return folder / "samples" / f"{speaker.name}-speech.wav"
