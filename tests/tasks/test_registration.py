"""Speakers and jobs come into a project whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gensync_core.artefacts import sha256_of
from gensync_core.errors import ArtefactBroken, FootageRejected, UsageError
from gensync_core.paths import Project
from tasks import dvc_project
from tasks.registration import (
    add_job,
    add_speaker,
    choose_group,
    cohort_targets,
    onboarding_targets,
    read_jobs,
    remove_job,
    remove_speaker,
)

Footage = Callable[..., Path]


@pytest.fixture
def no_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the second that `dvc add` takes."""
    monkeypatch.setattr(dvc_project, "add_file", lambda project, path: path.with_name(path.name + ".dvc").write_text("outs"))


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_speaker_is_copied_added_and_registered(toy: Project, footage: Footage) -> None:
    video = footage("moving pictures", "Anna's Clip.MP4")
    speaker = add_speaker(toy, video, "anna", "cohort", consent="letter of May 3")
    assert speaker == toy.registry().get("anna")
    assert speaker.raw == "data/raw/anna.mp4"
    assert speaker.sha256 == sha256_of(video) == sha256_of(toy.root / speaker.raw)
    assert video.exists()
    assert files_in(toy.root / "data" / "raw") == ["anna.mp4", "anna.mp4.dvc"]
    assert yaml.safe_load(toy.speakers_file.read_text())["cohort"] == ["anna"]
    assert onboarding_targets(speaker) == ["coarse@anna"]
    assert cohort_targets(toy) == ["joint", "evaluate@anna"]


@pytest.mark.parametrize("speaker_id", ["a/b", "Anna", "", "../x", "-x", "a" * 64, "a b"])
def test_an_id_that_is_not_safe_is_refused(speaker_id: str, toy: Project, footage: Footage) -> None:
    with pytest.raises(FootageRejected, match="not allowed"):
        add_speaker(toy, footage(), speaker_id, "cohort")
    assert not (toy.root / "data").exists()


@pytest.mark.usefixtures("no_dvc")
def test_an_id_that_exists_is_refused_and_keeps_its_footage(toy: Project, footage: Footage) -> None:
    add_speaker(toy, footage("first"), "anna", "cohort")
    with pytest.raises(FootageRejected, match="exists already"):
        add_speaker(toy, footage("second"), "anna", "cohort")
    assert (toy.root / "data/raw/anna.mp4").read_text() == "first"


def test_a_failure_on_the_way_leaves_nothing(toy: Project, footage: Footage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(project: Project, path: Path) -> None:
        path.with_name(path.name + ".dvc").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(dvc_project, "add_file", fail)
    before = toy.speakers_file.read_text()
    with pytest.raises(OSError, match="disk full"):
        add_speaker(toy, footage(), "anna", "cohort")
    assert files_in(toy.root / "data") == []
    assert toy.speakers_file.read_text() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_footage_that_may_not_be_read_is_rejected(toy: Project, footage: Footage) -> None:
    video = footage()
    video.chmod(0)
    with pytest.raises(FootageRejected, match="cannot be read"):
        add_speaker(toy, video, "anna", "cohort")


def test_a_missing_file_is_rejected(toy: Project, tmp_path: Path) -> None:
    with pytest.raises(FootageRejected, match="no such file"):
        add_speaker(toy, tmp_path / "nothing.mp4", "anna", "cohort")


@pytest.mark.fault("speaker added, edited, removed")
@pytest.mark.usefixtures("no_dvc")
def test_a_removed_speaker_leaves_no_folder_that_the_cohort_would_see(toy: Project, footage: Footage) -> None:
    add_speaker(toy, footage(), "anna", "cohort")
    (toy.cohort_folder / "anna").mkdir(parents=True)
    (toy.cohort_folder / "anna" / "clip").write_text("x")
    tuned = toy.finetuned(toy.registry().get("anna"))
    tuned.model.parent.mkdir(parents=True)
    for path in (tuned.model, tuned.training_log):
        path.write_text("x")
    remove_speaker(toy, "anna")
    assert toy.registry().ids() == []
    assert files_in(toy.root / "data") == []
    assert files_in(toy.finetuned_folder) == []
    assert not toy.cohort_folder.exists()
    with pytest.raises(UsageError):
        remove_speaker(toy, "anna")


def test_a_newcomer_joins_the_cohort_until_there_is_a_shared_model(toy: Project) -> None:
    assert choose_group(toy, "auto") == "cohort"
    with pytest.raises(UsageError, match="no shared model"):
        choose_group(toy, "adapted")
    toy.shared.parent.mkdir(parents=True)
    toy.shared.write_text("weights")
    assert choose_group(toy, "auto") == choose_group(toy, "adapted") == "adapted"
    assert choose_group(toy, "cohort") == "cohort"


def test_an_empty_cohort_cannot_be_trained(toy: Project) -> None:
    with pytest.raises(UsageError, match="cohort"):
        cohort_targets(toy)


@pytest.mark.usefixtures("no_dvc")
def test_the_same_speech_gives_the_same_job(toy: Project, footage: Footage) -> None:
    add_speaker(toy, footage(), "anna", "cohort")
    speech = footage("hello", "Hello.WAV")
    job, is_new = add_job(toy, "anna", speech)
    assert is_new
    assert job == f"anna-{sha256_of(speech)[:12]}"
    assert read_jobs(toy) == {job: {"speaker": "anna", "group": "cohort", "audio": f"data/speech/{job}.wav"}}
    assert (toy.root / f"data/speech/{job}.wav").read_text() == "hello"
    assert add_job(toy, "anna", speech) == (job, False)
    other, _ = add_job(toy, "anna", footage("good bye", "x.wav"))
    assert other != job
    remove_job(toy, other)
    remove_job(toy, "nobody-knows")
    assert list(read_jobs(toy)) == [job]
    assert files_in(toy.root / "data" / "speech") == [f"{job}.wav"]


@pytest.mark.usefixtures("no_dvc")
def test_a_job_needs_a_speaker_and_a_file(toy: Project, footage: Footage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no speaker"):
        add_job(toy, "anna", footage())
    add_speaker(toy, footage(), "anna", "cohort")
    with pytest.raises(FootageRejected, match="no such file"):
        add_job(toy, "anna", tmp_path / "nothing.wav")


def test_a_damaged_list_of_jobs_is_a_broken_artefact(toy: Project) -> None:
    toy.synth_file.write_text("jobs: [1, 2]\n")
    with pytest.raises(ArtefactBroken, match=r"synth\.yaml"):
        read_jobs(toy)
