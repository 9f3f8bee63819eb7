"""Project folders: made from the pipeline's source, and found from within."""

from pathlib import Path

import pytest
import yaml

from gensync_core.errors import UsageError
from gensync_core.paths import Project
from tasks.workspace import create_workspace, find_project, override_params, source_root

PARAMS = {"seed": 0, "joint": {"steps": 100, "batch_size": 2}}


def test_overrides_replace_values_and_nothing_else() -> None:
    changed = override_params(PARAMS, {"seed": 3, "joint": {"steps": 5}})
    assert changed == {"seed": 3, "joint": {"steps": 5, "batch_size": 2}}
    assert PARAMS["joint"] == {"steps": 100, "batch_size": 2}


@pytest.mark.parametrize("overrides", [{"paint": {"steps": 1}}, {"joint": {"stepz": 1}}])
def test_an_override_of_something_unknown_is_refused(overrides: dict) -> None:
    with pytest.raises(UsageError, match=r"'paint'|stepz"):
        override_params(PARAMS, overrides)


def test_a_workspace_is_whole_and_keeps_its_data_when_made_again(workspace: Project) -> None:
    root = workspace.root
    for name in ("dvc.yaml", ".dvcignore", "speakers.yaml", "synth.yaml", ".dvc/config", "gensync_core/__main__.py"):
        assert (root / name).is_file()
    workspace.synth_file.write_text("jobs: {a: {audio: x}}\n")
    (root / "gensync_core" / "stale.py").write_text("")
    create_workspace(root, source_root(), {"seed": 5})
    assert yaml.safe_load(workspace.synth_file.read_text()) == {"jobs": {"a": {"audio": "x"}}}
    assert yaml.safe_load(workspace.params_file.read_text())["seed"] == 5
    assert not (root / "gensync_core" / "stale.py").exists()


def test_dvc_reads_the_pipeline_of_a_workspace(workspace: Project) -> None:
    from tasks.dvc_project import plan

    assert [node.address for node in plan(workspace, ["joint"])] == ["joint"]


def test_a_project_is_found_from_a_folder_within(toy: Project, tmp_path: Path) -> None:
    inner = toy.root / "data" / "raw"
    inner.mkdir(parents=True)
    assert find_project(inner) == toy
    with pytest.raises(UsageError, match="no GenSync project"):
        find_project(tmp_path)
