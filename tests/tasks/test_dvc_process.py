"""DVC's own files are written whole or not at all."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gensync_core.paths import Project
from tasks.dvc_project import plan, read_lock, reproduce

ROOT = Path(__file__).resolve().parents[2]
KILLED_WHILE_WRITING = """
import os, signal, sys
from dvc.utils.serialize import modify_yaml
from dvc.fs import localfs
from tasks.dvc_process import write_whole
write_whole()
with modify_yaml(sys.argv[1], fs=localfs) as content:
    class Last(str):
        pass
    from ruamel.yaml.representer import RoundTripRepresenter
    RoundTripRepresenter.add_representer(Last, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    content["stages"] = {"ingest": {"cmd": "x" * 100_000, "deps": Last("never written")}}
"""


@pytest.mark.fault("kill -9 of DVC")
@pytest.mark.parametrize("name", ["dvc.lock", "rwlock"])
def test_a_file_that_is_being_written_when_dvc_is_killed_stays_as_it_was(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("schema: '2.0'\nstages: {}\n")
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -9
    assert path.read_text() == "schema: '2.0'\nstages: {}\n"


@pytest.mark.fault("kill -9 of DVC")
def test_dvc_never_writes_over_a_lock_that_is_there(toy: Project, enlist: Callable[..., None]) -> None:
    enlist("alice")
    ingest, coarse = plan(toy, ["coarse@alice"])
    reproduce(toy, ingest)
    kept = {}
    for path in (toy.root / "dvc.lock", toy.root / ".dvc" / "tmp" / "rwlock"):
        os.link(path, toy.root / f"kept-{path.name}")
        kept[path] = path.read_bytes()
    reproduce(toy, coarse)
    assert sorted(read_lock(toy)) == ["coarse@alice", "ingest@alice"]
    for path, before in kept.items():
        assert (toy.root / f"kept-{path.name}").read_bytes() == before
        assert not path.samefile(toy.root / f"kept-{path.name}"), "it was renamed into its place"
    assert not list(toy.root.rglob("*.new"))
