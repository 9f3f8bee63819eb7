"""A newcomer: check the footage, register it, run that speaker's stages."""

import sys
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.pipeline import STAGES_AT_ONCE, run_stages
from gensync_core.errors import FootageRejected
from gensync_core.paths import Project
from gensync_core.speakers import Speaker
from tasks import registration
from tasks.process import CommandFailed, raise_for, run_command


def check_footage(project: Project, video: Path) -> None:
    """Run the footage gate in a process of its own.

    Raises:
        CommandFailed: with exit code 3 where the footage is not fit for use.
    """
    command = [sys.executable, "-m", "gensync_core", "check", str(video.resolve())]
    raise_for(run_command(command, cwd=project.root), "check")


def register(project: Project, video: Path, speaker_id: str, group: Literal["auto", "cohort", "adapted"]) -> Speaker:
    """Check the footage and register its speaker; who is refused leaves nothing behind.

    Raises:
        FootageRejected: the id is not allowed or taken, or there is no such file.
        CommandFailed: the footage is not fit for use (exit code 3), or could not be checked.
    """
    registration.check_new_speaker(project, speaker_id)
    if not video.is_file():
        raise FootageRejected(f"{video}: no such file")
    check_footage(project, video)
    chosen = registration.default_group(project) if group == "auto" else group
    return registration.add_speaker(project, video, speaker_id, chosen)


@flow(name="onboard_speaker", task_runner=ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE))
def onboard_speaker(
    root: Path, video: Path, speaker: str, group: Literal["auto", "cohort", "adapted"] = "auto", train: bool = False
) -> str:
    """Onboard one speaker and return the group.

    A member of the cohort is brought up to the coarse Gaussians, someone adapted up to the report. A speaker whose footage a stage
    rejects is taken out again, so that nobody else is blocked; after any other failure the speaker stays, to be gone on with.

    Args:
        root: the project's folder.
        video: the footage.
        speaker: id of the newcomer.
        group: `auto` takes the cohort as long as there is no shared model.
        train: train the cohort afterwards.

    Raises:
        FootageRejected: the id is not allowed or taken.
        CommandFailed: the footage was rejected (exit code 3) or a stage failed.
    """
    project = Project(root)
    newcomer = register(project, video, speaker, group)
    try:
        run_stages(project, registration.onboarding_targets(newcomer))
    except CommandFailed as error:
        if error.exit_code == FootageRejected.exit_code:
            registration.remove_speaker(project, speaker)
        raise
    if train and newcomer.group == "cohort":
        run_stages(project, registration.cohort_targets(project))
    return newcomer.group
