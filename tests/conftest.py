"""Fixtures that more than one folder of tests uses."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from gensync_core.artefacts import sha256_of
from gensync_core.paths import Project
from gensync_core.speakers import Speaker
from tasks.workspace import create_workspace

pytest_plugins = ["fault_table"]
ROOT = Path(__file__).resolve().parents[1]

# Stages are processes of their own: they and the tests share two cores with whatever else runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest goes first, so that no worker starts it when the others have ended."""
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips, speech and pretrained parts; tests that need them skip elsewhere."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared test data beside the repository (../shared/data)")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Project:
    """An empty project with the real pipeline and code."""
    return create_workspace(tmp_path / "workspace", ROOT)


TOY_PIPELINE = {
    "vars": ["speakers.yaml", "synth.yaml", "finetune.yaml"],
    "stages": {
        "ingest": {
            "foreach": "${speakers}",
            "do": {
                "cmd": "python toy.py ingest ${key} ${item.raw} data/speakers/${item.group}/${key}/clip",
                "deps": ["${item.raw}", "toy.py"],
                "params": ["gain", {"speakers.yaml": ["speakers.${key}"]}],
                "outs": ["data/speakers/${item.group}/${key}/clip"],
                "meta": {"retries": 1, "retry_delay_s": 0, "deadline_s": 60},
            },
        },
        "coarse": {
            "foreach": "${speakers}",
            "do": {
                "cmd": "python toy.py coarse ${key} data/speakers/${item.group}/${key}/clip "
                "data/speakers/${item.group}/${key}/coarse",
                "deps": ["data/speakers/${item.group}/${key}/clip", "toy.py"],
                "outs": ["data/speakers/${item.group}/${key}/coarse"],
                "meta": {"retries": 1, "retry_delay_s": 0, "deadline_s": 60},
            },
        },
        "joint": {
            "cmd": "python toy.py joint cohort data/speakers/cohort models/main/shared.safetensors",
            "deps": ["data/speakers/cohort", "toy.py"],
            "params": ["weight", {"speakers.yaml": ["cohort"]}],
            "outs": ["models/main/shared.safetensors"],
        },
        "finetune": {
            "foreach": "${finetuned}",
            "do": {
                "cmd": "python toy.py finetune ${item} models/${item}/shared.safetensors models/finetuned/shared.safetensors",
                "deps": ["models/${item}/shared.safetensors", "toy.py"],
                "outs": ["models/finetuned"],
            },
        },
        "evaluate": {
            "foreach": "${speakers}",
            "do": {
                "cmd": "python toy.py evaluate ${key} models/main/shared.safetensors reports/${key}/report.html",
                "deps": ["models/main/shared.safetensors", "data/speakers/${item.group}/${key}/coarse", "toy.py"],
                "outs": ["reports/${key}/report.html"],
            },
        },
        "synth": {
            "foreach": "${jobs}",
            "do": {
                "cmd": "python toy.py synth ${item.speaker} ${item.audio} renders/${key}.mp4",
                "deps": ["${item.audio}", "toy.py"],
                "outs": ["renders/${key}.mp4"],
                "meta": {"retries": 0},
            },
        },
    },
}

# Behaves as its input file says: "reject", "crash", "sleep", "flaky" (fails once); anything else is copied.
TOY_STAGE = """
import pathlib, subprocess, sys, time
root = pathlib.Path(__file__).resolve().parent
stage, name, source, target = sys.argv[1:]
source, target = pathlib.Path(source), pathlib.Path(target)
files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
text = "".join(p.read_text() for p in files)
with open(root / "runs.log", "a") as log:
    log.write(f"{stage}@{name}\\n")
if f"reject {stage}" in text:
    print("error[3]: footage is not fit for use", file=sys.stderr); sys.exit(3)
if f"broken {stage}" in text:
    print("error[4]: artefact is damaged", file=sys.stderr); sys.exit(4)
if f"crash {stage}" in text and not (root / "mended").exists():
    raise RuntimeError("boom")
if f"sleep {stage}" in text:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])
if f"flaky {stage}" in text and open(root / "runs.log").read().count(f"{stage}@{name}\\n") == 1:
    raise RuntimeError("first attempt")
print('@progress {"job": "%s %s", "done": 1, "total": 1, "eta_s": 0.0, "note": ""}' % (stage, name))
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(text)
"""

# What the core answers to `python -m gensync_core check VIDEO`.
TOY_CORE = """
import json, pathlib, sys
text = pathlib.Path(sys.argv[2]).read_text()
if "no gate" in text:
    print("error[2]: params.yaml: unknown key", file=sys.stderr); sys.exit(2)
rejected = "reject check" in text
finding = {"code": "short", "severity": "warn", "message": "the clip is short", "seconds": [1.5]}
reason = {"code": "no_face", "severity": "reject", "message": "no face in the footage", "seconds": []}
print("loading")
print(json.dumps({"file": sys.argv[2], "rejected": rejected, "findings": [finding] + [reason] * rejected}))
"""


def make_toy_project(folder: Path) -> Project:
    """A project of the same shape as the real one, whose stages take no time."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n    site_cache_dir = {folder / '.site'}\n"
    )
    (folder / "dvc.yaml").write_text(yaml.safe_dump(TOY_PIPELINE, sort_keys=False))
    (folder / "params.yaml").write_text("gain: 1\nweight: 1\n")
    (folder / "speakers.yaml").write_text("speakers: {}\ncohort: []\nadapted: []\n")
    (folder / "synth.yaml").write_text("jobs: {}\n")
    (folder / "finetune.yaml").write_text("finetuned: []\n")
    (folder / "toy.py").write_text(TOY_STAGE)
    (folder / "gensync_core").mkdir()
    (folder / "gensync_core" / "__init__.py").touch()  # a folder without it would lose against the installed package
    (folder / "gensync_core" / "__main__.py").write_text(TOY_CORE)
    return Project(folder)


@pytest.fixture(scope="session")
def make_toy() -> Callable[[Path], Project]:
    """Makes an empty toy project in a folder; for fixtures that outlive a test."""
    return make_toy_project


@pytest.fixture
def toy(tmp_path: Path) -> Project:
    """An empty toy project."""
    return make_toy_project(tmp_path / "toy")


@pytest.fixture
def enlist(toy: Project) -> Callable[..., None]:
    """Registers a speaker of the toy project without the work of `dvc add`."""

    def enlist(name: str, text: str = "fine", group: str = "cohort") -> None:
        raw = toy.raw(name, ".mp4")
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_text(text)
        registry = toy.registry()
        registry.speakers[name] = Speaker(id=name, raw=f"data/raw/{name}.mp4", sha256=sha256_of(raw), group=group)
        registry.save(toy.speakers_file)

    return enlist


@pytest.fixture
def footage(tmp_path: Path) -> Callable[..., Path]:
    """Makes a file whose text tells the toy's stages how to behave."""

    def make(text: str = "fine", name: str = "footage.mp4") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One Prefect server with a database of its own for all tests of the session."""
    from prefect.testing.utilities import prefect_test_harness

    import flows  # noqa: F401  (its settings of Prefect)

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def executed() -> Callable[[Project], list[str]]:
    """Reads which stages of a toy project were executed so far, in order."""

    def read(project: Project) -> list[str]:
        log = project.root / "runs.log"
        return log.read_text().split() if log.exists() else []

    return read


@pytest.fixture
def python_command() -> Callable[[str], list[str]]:
    """Makes a command that runs a piece of Python."""
    return lambda code: [sys.executable, "-c", code]
