"""The walls of the house stand, and each falls over a seeded violation: a contract that cannot fail guards nothing."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "gensync_core")
CODE = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
MAX_LINES = 400

# Contract -> file -> line that it must not contain.
VIOLATIONS: dict[str, dict[str, str]] = {
    "house": {"gensync_core/errors.py": "import tasks.process"},
    "core-layers": {"gensync_core/errors.py": "import gensync_core.paths"},
    "core-pure": {"gensync_core/paths.py": "import prefect"},
    "stages-independent": {"gensync_core/stages/ingest.py": "import gensync_core.stages.parse"},
    "siblings": {
        "gensync_core/audio/waveform.py": "import gensync_core.face.regions",
        "gensync_core/face/regions.py": "import gensync_core.audio.waveform",
    },
    "thin-orchestration": {"flows/pipeline.py": "import torch"},
    "one-door-gsplat": {"gensync_core/gaussians/cloud.py": "import gsplat"},
    "one-door-ffmpeg": {"gensync_core/audio/waveform.py": "import ffmpeg"},
    "one-door-av": {"gensync_core/audio/waveform.py": "import av"},
    "one-door-mediapipe": {"gensync_core/face/tracker.py": "import mediapipe"},
    "one-door-transformers": {"gensync_core/model/gensync.py": "import transformers"},
    "one-door-dvc": {"tasks/registration.py": "import dvc"},
    "one-door-boto": {"tasks/workspace.py": "import boto3"},
}


def lint(folder: Path, contract: str | None = None) -> subprocess.CompletedProcess[str]:
    chosen = ["--contract", contract] if contract else []
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache", *chosen]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The imports of the project and nothing else: graph building then takes no time to speak of."""
    folder = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_every_contract_holds() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_every_contract_has_a_violation_here() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    assert {name.split(":")[2] for name in config.sections() if name.count(":") == 2} == set(VIOLATIONS)


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_seeded_violation_breaks_the_contract(contract: str, copy: Path) -> None:
    before = {name: (copy / name).read_text() for name in VIOLATIONS[contract]}
    for name, line in VIOLATIONS[contract].items():
        (copy / name).write_text(f"{before[name]}\n{line}\n")
    try:
        done = lint(copy, contract)
    finally:
        for name, text in before.items():
            (copy / name).write_text(text)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


@pytest.mark.parametrize("path", CODE + TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_named_for_what_they_hold_and_not_too_long(path: Path) -> None:
    assert path.stem not in BANNED_NAMES
    assert len(path.read_text().splitlines()) <= MAX_LINES, f"{path} holds more than one thing"


def test_no_folder_is_a_drawer_for_everything() -> None:
    assert not [path.parent for path in CODE if path.parent.name in BANNED_NAMES]


def test_stages_that_look_at_faces_start_without_torch() -> None:
    """Loading it takes longer than looking at seconds of footage."""
    program = "import sys, gensync_core.stages.parse, gensync_core.stages.track; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
