"""Who and what is in a project: adds and removes speakers and synthesis jobs, whole or not at all.

`speakers.yaml`, `synth.yaml` and `finetune.yaml` have one writer at a time: a lock file keeps a second process waiting.
"""

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gensync_core.artefacts import atomic_path, sha256_of
from gensync_core.errors import ArtefactBroken, FootageRejected, GenSyncError, UsageError
from gensync_core.paths import COHORT_NAME, Project
from gensync_core.speakers import Speaker, check_speaker_id
from tasks import dvc_project, dvc_slice

_SUFFIX = re.compile(r"^\.[a-z0-9]{1,8}$")


def check_new_speaker(project: Project, speaker_id: str) -> None:
    """Refuse an id that cannot be registered.

    Raises:
        FootageRejected: the id is not allowed or taken.
    """
    check_speaker_id(speaker_id)
    if speaker_id in project.registry().speakers:
        raise FootageRejected(
            f"speaker id {speaker_id!r} exists already; choose another one "
            f"(or go on with an interrupted onboarding: gensync evaluate --speaker {speaker_id})"
        )


def add_speaker(
    project: Project, video: Path, speaker_id: str, group: str, *, consent: str | None = None, sha256: str | None = None
) -> Speaker:
    """Copy footage into the project, give it to DVC and register the speaker; on failure nothing is left.

    Args:
        project: the project.
        video: footage anywhere on this machine; it stays where it is.
        speaker_id: id of a speaker who is not registered.
        group: `cohort` or `adapted`.
        consent: reference to the person's consent record.
        sha256: what the file's digest has to be.

    Raises:
        FootageRejected: the id is not allowed or taken, or the file cannot be read.
        GenSyncError: the file is not the one that it was, or has been changed meanwhile.
    """
    if not video.is_file():
        raise FootageRejected(f"{video}: no such file")
    with _registry_lock(project):
        check_new_speaker(project, speaker_id)
        raw = project.raw(speaker_id, _plain_suffix(video))
        try:
            _copy_whole(video, raw)
            digest = sha256_of(raw)
            if sha256 not in (None, digest):
                raise GenSyncError(f"{video}: its content is not what it was when it was looked at first")
            dvc_project.add_file(project, raw)
            speaker = Speaker(
                id=speaker_id,
                raw=raw.relative_to(project.root).as_posix(),
                sha256=digest,
                group=group,
                consent=consent,
            )
            registry = project.registry()
            registry.speakers[speaker_id] = speaker
            registry.save(project.speakers_file)
        except BaseException:
            dvc_project.forget_file(raw)
            raise
    return speaker


def remove_speaker(project: Project, speaker_id: str) -> None:
    """Take a speaker out: entry, footage, artefacts and report. What DVC's cache holds stays until `dvc gc`.

    Raises:
        UsageError: nobody of that name was onboarded.
    """
    with _registry_lock(project):
        registry = project.registry()
        speaker = registry.get(speaker_id)
        paths = project.speaker(speaker)
        del registry.speakers[speaker_id]
        registry.save(project.speakers_file)
        dvc_slice.close_slice(project, speaker_id)
        dvc_project.forget_file(paths.raw)
        shutil.rmtree(paths.folder, ignore_errors=True)
        shutil.rmtree(paths.report, ignore_errors=True)
        paths.model.unlink(missing_ok=True)
        paths.training_log.unlink(missing_ok=True)
        project.finetuned(speaker).model.unlink(missing_ok=True)
        project.finetuned(speaker).training_log.unlink(missing_ok=True)
        _prune_empty(paths.folder.parent, project.root)


def add_job(project: Project, speaker_id: str, audio: Path) -> tuple[str, bool]:
    """Copy speech into the project and register its synthesis; the same speaker and speech give the same job.

    Returns:
        The job's name, `SPEAKER-<12 digits of the speech's sha256>`, and whether it is new.

    Raises:
        UsageError: unknown speaker.
        FootageRejected: the file cannot be read.
    """
    speaker = project.registry().get(speaker_id)
    if not audio.is_file():
        raise FootageRejected(f"{audio}: no such file")
    job = f"{speaker_id}-{sha256_of(audio)[:12]}"
    with _registry_lock(project):
        jobs = read_jobs(project)
        target = project.speech(job + _plain_suffix(audio))
        entry = {"speaker": speaker_id, "group": speaker.group, "audio": target.relative_to(project.root).as_posix()}
        if jobs.get(job) == entry and target.is_file():
            return job, False
        _copy_whole(audio, target)
        _write_jobs(project, jobs | {job: entry})
    return job, True


def remove_job(project: Project, job: str) -> None:
    """Take a job, its speech and its video out; an unknown job is no error."""
    with _registry_lock(project):
        jobs = read_jobs(project)
        entry = jobs.pop(job, None)
        if entry is None:
            return
        _write_jobs(project, jobs)
        (project.root / entry["audio"]).unlink(missing_ok=True)
        project.render(job).unlink(missing_ok=True)


def read_jobs(project: Project) -> dict[str, dict[str, Any]]:
    """The jobs in `synth.yaml`: name -> `{speaker, group, audio}`.

    Raises:
        ArtefactBroken: the file is not what this module writes.
    """
    if not project.synth_file.exists():
        return {}
    try:
        jobs = (yaml.safe_load(project.synth_file.read_text()) or {}).get("jobs") or {}
        if not all(isinstance(entry, dict) and "audio" in entry for entry in jobs.values()):
            raise ValueError("an entry without `audio`")
    except (yaml.YAMLError, AttributeError, ValueError) as error:
        raise ArtefactBroken(f"{project.synth_file}: not a valid list of jobs ({error})") from error
    return jobs


def choose_group(project: Project, group: str) -> str:
    """For `auto`: `cohort` as long as there is no shared model, then `adapted`, which disturbs nobody else's stages.

    Raises:
        UsageError: someone is to be adapted to a shared model that is not there.
    """
    if group == "auto":
        return "adapted" if project.shared.exists() else "cohort"
    if group == "adapted" and not project.shared.exists():
        raise UsageError("there is no shared model to adapt to yet: onboard a cohort and run gensync train")
    return group


def cohort_targets(project: Project) -> list[str]:
    """Stages that train the cohort and evaluate it.

    Raises:
        UsageError: the cohort is empty.
    """
    cohort = project.registry().ids("cohort")
    if not cohort:
        raise UsageError("nobody is in the cohort yet: gensync onboard VIDEO --speaker ID --group cohort")
    return ["joint", *(f"evaluate@{speaker}" for speaker in cohort)]


def check_finetuning(project: Project) -> None:
    """Refuse to fine-tune what cannot be.

    Raises:
        UsageError: nobody is adapted, or somebody's model is not there yet.
    """
    registry = project.registry()
    if not registry.ids("adapted"):
        raise UsageError("nobody is adapted, so there is nobody to fine-tune for: gensync onboard VIDEO --speaker ID")
    untrained = [name for name, speaker in registry.speakers.items() if not project.speaker(speaker).model.exists()]
    if untrained or not project.shared.exists():
        raise UsageError(f"not trained yet: {', '.join(untrained) or 'the cohort'}; run gensync evaluate first")


def ask_for_finetuning(project: Project) -> bool:
    """Put the fine-tuning of the model in use into the graph; returns whether it was not there before.

    Raises:
        UsageError: nobody is adapted, or somebody's model is not there yet.
    """
    check_finetuning(project)
    with _registry_lock(project):
        asked = yaml.safe_load(project.finetune_file.read_text()) if project.finetune_file.exists() else None
        if asked == {"finetuned": [COHORT_NAME]}:
            return False
        _write_finetuned(project, [COHORT_NAME])
    return True


def forget_finetuning(project: Project) -> None:
    """Take the fine-tuning out of the graph; a fine-tuned model that is there stays."""
    with _registry_lock(project):
        _write_finetuned(project, [])


def onboarding_targets(speaker: Speaker) -> list[str]:
    """Stages that a newcomer needs: up to the coarse Gaussians in the cohort, up to the report when adapted."""
    return [f"coarse@{speaker.id}" if speaker.group == "cohort" else f"evaluate@{speaker.id}"]


@contextmanager
def _registry_lock(project: Project) -> Iterator[None]:
    path = project.root / ".gensync" / "registry.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_jobs(project: Project, jobs: dict[str, dict[str, Any]]) -> None:
    with atomic_path(project.synth_file) as temporary:
        temporary.write_text(yaml.safe_dump({"jobs": jobs}, sort_keys=True))


def _write_finetuned(project: Project, models: list[str]) -> None:
    with atomic_path(project.finetune_file) as temporary:
        temporary.write_text(yaml.safe_dump({"finetuned": models}))


def _plain_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix if _SUFFIX.match(suffix) else ""


def _copy_whole(source: Path, target: Path) -> None:
    try:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    except PermissionError as error:
        raise FootageRejected(f"{source}: cannot be read ({error.strerror})") from error


def _prune_empty(folder: Path, root: Path) -> None:
    """An empty cohort folder would still count as a dependency of the joint stage."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
