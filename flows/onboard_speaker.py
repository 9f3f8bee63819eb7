"""A newcomer: check the footage, register it, run that speaker's stages."""

from pathlib import Path
from typing import Literal

from prefect import flow

from flows.pipeline import run_stages
from flows.task_runner import stage_runner
from gensync_core.errors import FootageRejected
from gensync_core.paths import Project
from gensync_core.speakers import Speaker
from tasks import registration
from tasks.footage import check_footage, raise_if_rejected
from tasks.limits import writing
from tasks.process import CommandFailed

Group = Literal["auto", "cohort", "adapted"]


def register(
    project: Project,
    video: Path,
    speaker_id: str,
    group: Group,
    *,
    consent: str | None = None,
    sha256: str | None = None,
) -> Speaker:
    """Check the footage and register its speaker; who is refused leaves nothing behind.

    Raises:
        FootageRejected: the id is not allowed or taken, or the footage is not fit for use.
        UsageError: there is no shared model to adapt to.
        CommandFailed: the footage could not be checked.
        GenSyncError: the file's digest is not `sha256`.
    """
    registration.check_new_speaker(project, speaker_id)
    chosen = registration.choose_group(project, group)
    raise_if_rejected(check_footage(project.root, video))
    with writing():
        return registration.add_speaker(project, video, speaker_id, chosen, consent=consent, sha256=sha256)


def bring_up(project: Project, newcomer: Speaker) -> None:
    """Run a registered speaker's stages: up to the coarse Gaussians in the cohort, up to the report when adapted.

    A speaker whose footage a stage rejects is taken out again, so that nobody else is blocked; after any other failure the
    speaker stays, to be gone on with. To be called within a flow.

    Raises:
        CommandFailed: a stage failed, with exit code 3 where it rejected the footage.
    """
    try:
        run_stages(project, registration.onboarding_targets(newcomer), scope=newcomer.id)
    except CommandFailed as error:
        if error.exit_code == FootageRejected.exit_code:
            with writing():
                registration.remove_speaker(project, newcomer.id)
        raise


@flow(name="onboard_speaker", task_runner=stage_runner())
def onboard_speaker(root: Path, video: Path, speaker: str, group: Group = "auto", train: bool = False) -> str:
    """Onboard one speaker and return the group.

    Args:
        root: the project's folder.
        video: the footage.
        speaker: id of the newcomer.
        group: `auto` takes the cohort as long as there is no shared model.
        train: train the cohort afterwards.

    Raises:
        FootageRejected: the id is not allowed or taken, or the footage is not fit for use.
        CommandFailed: a stage failed, with exit code 3 where it rejected the footage.
    """
    project = Project(root)
    newcomer = register(project, video, speaker, group)
    bring_up(project, newcomer)
    if train and newcomer.group == "cohort":
        run_stages(project, registration.cohort_targets(project))
    return newcomer.group
