"""Speech to video: register the job, run it, hand the video over."""

import shutil
from pathlib import Path

from prefect import flow

from flows.pipeline import run_stages
from flows.task_runner import stage_runner
from gensync_core.artefacts import atomic_path
from gensync_core.errors import UsageError
from gensync_core.paths import Project
from tasks import registration
from tasks.limits import writing


def check_model(project: Project, speaker_id: str) -> None:
    """Refuse a speaker that nothing was trained for yet.

    Raises:
        UsageError: unknown speaker, or one without a model.
    """
    speaker = project.registry().get(speaker_id)
    if not project.speaker(speaker).model.exists():
        step = "gensync train" if speaker.group == "cohort" else f"gensync evaluate --speaker {speaker_id}"
        raise UsageError(f"speaker {speaker_id!r} has no trained model yet: {step}")


@flow(name="synthesize", task_runner=stage_runner())
def synthesize(root: Path, speaker: str, audio: Path, out: Path) -> Path:
    """Render `speaker` saying `audio` into `out`, with the model as it is: nothing above synthesis is run.

    Raises:
        UsageError: unknown speaker, or one without a model.
        FootageRejected: there is no such audio file.
        CommandFailed: synthesis failed, with exit code 3 where the audio cannot be used; the job is not kept then.
    """
    project = Project(root)
    check_model(project, speaker)
    with writing():
        job, is_new = registration.add_job(project, speaker, audio)
    try:
        run_stages(project, [f"synth@{job}"], scope=job)
    except BaseException:
        if is_new:
            with writing():
                registration.remove_job(project, job)
        raise
    with atomic_path(out) as temporary:
        shutil.copyfile(project.render(job), temporary)
    return out
