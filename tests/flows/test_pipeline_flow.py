"""The flows on a toy project: what runs, what is retried, what a failure stops, and that plain DVC agrees."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gensync_core.errors import FootageRejected, UsageError
from gensync_core.paths import Project
from tasks.process import CommandFailed, run_command
from tasks.registration import read_jobs

pytestmark = pytest.mark.usefixtures("prefect_server")
Footage = Callable[..., Path]
Enlist = Callable[..., None]
Executed = Callable[[Project], list[str]]


def lock_of(project: Project) -> dict[str, Any]:
    return yaml.safe_load((project.root / "dvc.lock").read_text())


@pytest.mark.fault("dvc repro beside the flow")
def test_from_footage_to_a_video_and_plain_dvc_agrees(
    toy: Project, footage: Footage, executed: Executed, tmp_path: Path
) -> None:
    from flows.onboard_speaker import onboard_speaker
    from flows.synthesize import synthesize
    from flows.train_cohort import train_cohort

    assert onboard_speaker(toy.root, footage("alice"), "alice", train=True) == "cohort"
    assert executed(toy) == ["ingest@alice", "coarse@alice", "joint@cohort", "evaluate@alice"]
    assert train_cohort(toy.root) == []

    assert onboard_speaker(toy.root, footage("carl"), "carl") == "adapted"
    assert executed(toy)[4:] == ["ingest@carl", "coarse@carl", "evaluate@carl"]

    toy.model_folder.joinpath("cohort").mkdir()
    toy.speaker(toy.registry().get("alice")).model.write_text("state")
    out = synthesize(toy.root, "alice", footage("good morning", "speech.wav"), tmp_path / "videos" / "out.mp4")
    assert out.read_text() == "good morning"
    assert executed(toy)[7:] == ["synth@alice"]
    synthesize(toy.root, "alice", footage("good morning", "speech.wav"), out)
    assert len(executed(toy)) == 8, "the same speech is not rendered twice"

    lock = lock_of(toy)
    assert run_command(["dvc", "repro"], cwd=toy.root).exit_code == 0
    assert len(executed(toy)) == 8, "DVC finds everything done that the flows did"
    assert lock_of(toy) == lock
    # From scratch, without what DVC remembers of earlier runs: the same lock.
    for leftover in ("dvc.lock", ".dvc/cache/runs", "models", "reports", "renders", "data/speakers"):
        path = toy.root / leftover
        path.unlink() if path.is_file() else shutil.rmtree(path)
    assert run_command(["dvc", "repro"], cwd=toy.root).exit_code == 0
    assert len(executed(toy)) == 16
    assert lock_of(toy) == lock


@pytest.mark.fault("failed run retried")
def test_a_stage_that_fails_stops_its_speaker_only_and_a_flaky_one_is_retried(
    toy: Project, enlist: Enlist, executed: Executed
) -> None:
    from flows.pipeline import pipeline

    enlist("alice", "flaky coarse")
    enlist("bob", "broken ingest")
    with pytest.raises(CommandFailed, match="ingest@bob: artefact is damaged") as caught:
        pipeline(toy.root, ["joint"])
    assert caught.value.exit_code == 4
    assert sorted(executed(toy)) == ["coarse@alice", "coarse@alice", "ingest@alice", "ingest@bob"]
    assert (toy.cohort_folder / "alice" / "coarse").exists()


@pytest.mark.fault("deadline passed")
def test_a_deadline_is_an_error_and_not_retried(toy: Project, enlist: Enlist) -> None:
    from flows.pipeline import pipeline

    text = (toy.root / "dvc.yaml").read_text()
    (toy.root / "dvc.yaml").write_text(text.replace("deadline_s: 60", "deadline_s: 3"))
    enlist("alice", "sleep ingest")
    started = time.monotonic()
    with pytest.raises(CommandFailed, match="its deadline"):
        pipeline(toy.root, ["ingest@alice"])
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("text", ["reject check", "reject ingest"])
def test_a_rejected_newcomer_leaves_nothing(text: str, toy: Project, footage: Footage, executed: Executed) -> None:
    from flows.onboard_speaker import onboard_speaker

    speakers = yaml.safe_load(toy.speakers_file.read_text())
    with pytest.raises((FootageRejected, CommandFailed)) as caught:
        onboard_speaker(toy.root, footage(text), "alice")
    assert caught.value.exit_code == FootageRejected.exit_code
    assert executed(toy) in ([], ["ingest@alice"]), "a rejection is not retried"
    assert yaml.safe_load(toy.speakers_file.read_text()) == speakers
    assert [path for path in (toy.root / "data").rglob("*") if path.is_file()] == []


@pytest.mark.fault("failed run retried")
def test_a_newcomer_whose_stage_crashes_stays_and_can_be_gone_on_with(
    toy: Project, footage: Footage, executed: Executed
) -> None:
    from flows.onboard_speaker import onboard_speaker
    from flows.pipeline import pipeline

    with pytest.raises(CommandFailed, match="boom"):
        onboard_speaker(toy.root, footage("crash coarse"), "alice")
    assert executed(toy) == ["ingest@alice", "coarse@alice", "coarse@alice"]
    (toy.root / "mended").touch()
    assert [result.address for result in pipeline(toy.root, ["coarse@alice"])] == ["coarse@alice"]


def test_speech_that_cannot_be_used_leaves_no_job(toy: Project, enlist: Enlist, footage: Footage, tmp_path: Path) -> None:
    from flows.synthesize import synthesize

    enlist("alice")
    with pytest.raises(UsageError, match="no trained model yet: gensync train"):
        synthesize(toy.root, "alice", footage("hello", "speech.wav"), tmp_path / "out.mp4")
    model = toy.speaker(toy.registry().get("alice")).model
    model.parent.mkdir(parents=True)
    model.write_text("state")
    with pytest.raises(CommandFailed) as caught:
        synthesize(toy.root, "alice", footage("reject synth", "speech.wav"), tmp_path / "out.mp4")
    assert caught.value.exit_code == 3
    assert read_jobs(toy) == {}
    assert not (tmp_path / "out.mp4").exists()
    assert list((toy.root / "data" / "speech").iterdir()) == []


def test_fine_tuning_runs_once_it_is_asked_for_and_only_then(
    toy: Project, footage: Footage, enlist: Enlist, executed: Executed
) -> None:
    from flows.finetune import finetune
    from flows.onboard_speaker import onboard_speaker

    onboard_speaker(toy.root, footage("alice"), "alice", train=True)
    with pytest.raises(UsageError, match="nobody is adapted"):
        finetune(toy.root)
    onboard_speaker(toy.root, footage("carl"), "carl")
    with pytest.raises(UsageError, match="not trained yet: alice, carl"):
        finetune(toy.root)
    for speaker in toy.registry().speakers.values():
        toy.speaker(speaker).model.parent.mkdir(exist_ok=True)
        toy.speaker(speaker).model.write_text("state")
    assert run_command(["dvc", "repro"], cwd=toy.root).exit_code == 0
    assert not any(stage.startswith("finetune") for stage in executed(toy))

    (toy.root / "params.yaml").write_text("gain: 1\nweight: 2\n")  # joint is out of date, and is left alone
    assert [result.address for result in finetune(toy.root)] == ["finetune@main"]
    assert executed(toy)[-1] == "finetune@main"
    assert toy.finetuned_shared.read_text() == toy.shared.read_text()
    assert finetune(toy.root) == []


def test_a_fine_tuning_that_fails_is_not_kept_in_the_graph(toy: Project, footage: Footage, enlist: Enlist) -> None:
    from flows.finetune import finetune

    enlist("carl", group="adapted")
    for path in (toy.shared, toy.speaker(toy.registry().get("carl")).model):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("reject finetune")
    with pytest.raises(CommandFailed) as caught:
        finetune(toy.root)
    assert caught.value.exit_code == 3
    assert yaml.safe_load(toy.finetune_file.read_text()) == {"finetuned": []}
