"""The command line: exit codes, one clear line for what can be explained, machine output; nothing here starts Prefect."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows import cli, cli_show, machine
from flows.display import BarDisplay, LineDisplay, duration
from flows.speaker_table import speaker_row
from gensync_core.artefacts import write_json, write_tensors
from gensync_core.paths import Project
from gensync_core.progress import Tick

Footage = Callable[..., Path]
Enlist = Callable[..., None]
COMMANDS = (
    "demo", "sample", "check", "onboard", "train", "synth", "evaluate", "finetune", "export", "speakers", "doctor",
    "serve", "inbox",
)  # fmt: skip


@pytest.fixture
def gensync(monkeypatch: pytest.MonkeyPatch, toy: Project) -> Callable[..., int]:
    """Runs the command in the toy project and returns its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.chdir(toy.root)
        monkeypatch.setattr(sys, "argv", ["gensync", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def one_error_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in text
    return lines[0]


def test_help_names_every_command(gensync: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert gensync("--help") == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert "Exit codes" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["synth", "--speaker", "anna"],
        ["paint"],
        ["onboard", "x.mp4", "--speaker", "anna", "--group", "family"],
        ["synth", "--speaker", "nobody", "--audio", "x.wav", "--out", "y.mp4"],
        ["train"],
        ["evaluate"],
        ["finetune"],
        ["export", "--speaker", "nobody", "--out", "x.ply"],
        ["--project", "/", "speakers"],
    ],
)
def test_wrong_usage_has_exit_code_2(arguments: list[str], gensync: Callable[..., int]) -> None:
    assert gensync(*arguments) == 2


def test_an_id_that_cannot_be_taken_is_rejected_before_anything_runs(
    gensync: Callable[..., int], enlist: Enlist, footage: Footage, capsys: pytest.CaptureFixture[str]
) -> None:
    enlist("anna")
    video = str(footage())
    for speaker, says in (("anna", "exists already"), ("An/na", "not allowed")):
        assert gensync("onboard", video, "--speaker", speaker) == 3
        assert says in one_error_line(capsys.readouterr().err)
    assert gensync("onboard", "nothing.mp4", "--speaker", "bob") == 3
    assert "no such file" in one_error_line(capsys.readouterr().err)


def test_check_prints_findings_and_rejects(
    gensync: Callable[..., int], footage: Footage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gensync("check", str(footage())) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("warn", "short", "0:01.5", "the clip is short"))
    assert gensync("check", str(footage()), "--json") == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["code"] == "short"
    assert gensync("check", str(footage("reject check"))) == 3
    assert one_error_line(capsys.readouterr().err).endswith("no face in the footage")
    assert gensync("check", str(footage("reject check")), "--json") == 3
    assert json.loads(capsys.readouterr().out)["rejected"]
    assert gensync("check", "nothing.mp4") == 3
    assert gensync("check", str(footage("no gate"))) == 2


def test_speakers_shows_each_state(
    toy: Project, enlist: Enlist, gensync: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert gensync("speakers") == 0
    assert "nobody is onboarded" in capsys.readouterr().out
    enlist("anna")
    enlist("radio", group="adapted")
    anna = toy.registry().get("anna")
    assert speaker_row(toy, anna, []).state == "registered"
    write_json(toy.speaker(anna).clip_json, {"duration_s": 20.0})
    assert speaker_row(toy, anna, []).seconds == 20.0
    tensors = {"head.means": np.zeros((30, 3)), "torso.means": np.zeros((10, 3))}
    write_tensors(toy.speaker(anna).coarse, tensors)
    assert (speaker_row(toy, anna, []).state, speaker_row(toy, anna, []).gaussians) == ("coarse", 40)
    write_tensors(toy.speaker(anna).model, tensors)
    assert speaker_row(toy, anna, []).state == "trained"
    write_json(toy.speaker(anna).report / "metrics.json", {"psnr_head_over_truth": 28.4, "aperture_r_gap": 0.61})
    assert gensync("speakers", "--json") == 0
    anna_row, radio_row = json.loads(capsys.readouterr().out)
    assert anna_row == {
        "id": "anna", "group": "cohort", "state": "ready", "file": None, "seconds": 20.0, "gaussians": 40, "psnr_db": 28.4,
        "sync": 0.61, "since": (toy.speaker(anna).report / "metrics.json").stat().st_mtime,
    }  # fmt: skip
    assert (radio_row["state"], radio_row["psnr_db"]) == ("registered", None)
    assert gensync("speakers") == 0
    assert "28.4 dB" in capsys.readouterr().out
    toy.speaker(anna).coarse.write_bytes(b"broken")
    assert speaker_row(toy, anna, []).state.startswith("broken: ")


def test_fine_tuning_shows_scores_before_and_after(toy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = {"psnr_head_over_truth": 28.41, "lmd_px512": None}, {"psnr_head_over_truth": 29.5, "lmd_px512": 3.0}
    write_json(toy.finetuned_scores, {"speakers": {"anna": {"group": "cohort", "before": before, "after": after}}})
    cli_show.finetuned(toy, as_json=False)
    shown = capsys.readouterr().out
    assert "28.41 -> 29.50" in shown
    assert "3.00" not in shown
    assert "models/main is in use, as before" in shown
    cli_show.finetuned(toy, as_json=True)
    assert json.loads(capsys.readouterr().out)["speakers"]["anna"]["after"] == after


def test_a_broken_registry_has_exit_code_4(toy: Project, gensync: Callable[..., int]) -> None:
    toy.speakers_file.write_text("speakers: [1]\n")
    assert gensync("speakers") == 4


def test_doctor_says_what_is_missing(
    gensync: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = machine.Item(name="ffmpeg", ok=False, found="nothing", remedy="make install")
    optional = machine.Item(name="memory", ok=False, found="2 GB", needed=False)
    monkeypatch.setattr(machine, "examine", lambda folder: [missing, optional])
    assert gensync("doctor") == 1
    assert "make install" in capsys.readouterr().out
    monkeypatch.setattr(machine, "examine", lambda folder: [optional])
    assert gensync("doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "memory"


def test_commands_that_only_look_load_neither_prefect_nor_the_network() -> None:
    code = "import sys, flows.cli; print(sorted({'prefect', 'dvc', 'torch', 'mediapipe', 'transformers'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(cli.__file__).parents[1]
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("seconds", "shown"), [(None, ""), (4.4, "4 s"), (65, "1 min 05 s"), (7260, "2 h 01 min")])
def test_durations_read_well(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize("display", [BarDisplay, LineDisplay])
def test_a_display_takes_whatever_comes(display: type[BarDisplay | LineDisplay], capsys: pytest.CaptureFixture[str]) -> None:
    with display("starting") as shown:
        shown.ticked("ingest@anna", Tick("ingest", 1, 2, None))
        shown.started("ingest@anna")
        shown.ticked("ingest@anna", Tick("ingest", 1, 2, 3.0, "loss 1"))
        shown.ticked("ingest@anna", Tick("something else", 1, 0, None))
        shown.ended("ingest@anna", "executed", 3.0)
        shown.ended("ingest@anna", "failed", 3.0)
    text = capsys.readouterr().err
    assert "ingest@anna" in text
    assert "failed" in text
