"""The whole chain at 64 px: sample footage -> Prefect flows -> DVC stages -> lip-synced video."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.onboard_speaker import onboard_speaker
from flows.pipeline import pipeline
from flows.synthesize import synthesize
from flows.train_cohort import train_cohort
from gensync_core.artefacts import read_json, sha256_of
from gensync_core.media.video import probe
from gensync_core.paths import Project
from tasks.workspace import create_workspace

ROOT = Path(__file__).resolve().parents[2]
OVERRIDES = {
    "ingest": {"resolution": 64},
    "audio": {"encoder": "log-mel"},
    "coarse": {"steps": 10, "head_gaussians": 600, "torso_gaussians": 200, "views": 2},
    "joint": {"steps": 12, "torso_steps": 4, "motion_pairs": 2},
    "adapt": {"steps": 6, "torso_steps": 2, "motion_pairs": 2},
    "model": {"triplane_levels": 4, "triplane_log2_table": 10},
    "evaluate": {"max_frames": 6},
}
SECONDS = 3.0


def _core(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "gensync_core", *map(str, arguments)], check=True, cwd=ROOT, timeout=300)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("samples")
    _core("sample", "--name", "astronaut", "--out", folder / "astronaut.mp4", "--seconds", SECONDS, "--size", 128)
    _core("speech", "--out", folder / "speech.wav", "--seconds", 1.3, "--seed", 7)
    return {path.stem: path for path in folder.iterdir() if path.suffix in (".mp4", ".wav")}


def _dvc(project: Project, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _outputs(project: Project) -> dict[str, str]:
    folders = [project.root / name for name in ("data/speakers", "models", "reports", "renders")]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(project.root).as_posix(): sha256_of(path) for path in files}


@pytest.mark.usefixtures("prefect_server")
def test_from_footage_to_video_and_back_again(samples, tmp_path):
    project = create_workspace(tmp_path / "first", ROOT, OVERRIDES)
    assert onboard_speaker(project.root, samples["astronaut"], "astronaut", "cohort") == "cohort"
    train_cohort(project.root)
    alone = _outputs(project)

    # A newcomer is adapted against the frozen network and disturbs nobody.
    assert onboard_speaker(project.root, samples["astronaut"], "newcomer") == "adapted"
    both = _outputs(project)
    assert {name: both[name] for name in alone} == alone
    assert "models/main/adapted/newcomer.safetensors" in both

    for speaker in ("astronaut", "newcomer"):
        out = synthesize(project.root, speaker, samples["speech"], tmp_path / f"{speaker}.mp4")
        made = probe(out)
        assert (made.width, made.height, made.fps) == (64, 64, 25)
        assert abs(made.num_frames / 25 - 1.3) <= 1 / 25
        assert made.has_audio
        metrics = read_json(project.root / "reports" / speaker / "metrics.json")
        assert 5 < metrics["psnr_full"] < 60
        assert (project.root / "reports" / speaker / "report.html").stat().st_size > 10_000

    # Nothing is left to do, for DVC or for Prefect; the two agree on what was done.
    assert "up to date" in _dvc(project, "status").lower()
    lock = (project.root / "dvc.lock").read_bytes()
    assert "Running stage" not in _dvc(project, "repro")
    assert pipeline(project.root, ["joint", "evaluate"]) == []
    assert (project.root / "dvc.lock").read_bytes() == lock

    # One loss weight re-runs joint and what follows, no preprocessing.
    params = yaml.safe_load(project.params_file.read_text())
    params["loss"]["swap"] += 0.1
    project.params_file.write_text(yaml.safe_dump(params, sort_keys=False))
    changed = _dvc(project, "status")
    for untouched in ("ingest", "parse", "track", "audio", "coarse"):
        assert f"{untouched}@" not in changed
    assert "joint:" in changed


@pytest.mark.fault("training twice, or killed and resumed")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_runs_from_scratch_give_the_same_bytes(samples, tmp_path):
    outputs = []
    for name in ("first", "second"):
        project = create_workspace(tmp_path / name, ROOT, OVERRIDES)
        for speaker in ("one", "other"):
            onboard_speaker(project.root, samples["astronaut"], speaker, "cohort")
        train_cohort(project.root)
        outputs.append(_outputs(project))
        shutil.rmtree(project.root)
    assert outputs[0] == outputs[1]
