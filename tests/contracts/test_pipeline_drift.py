"""`dvc.yaml`, `params.yaml`, `stages/` and the parameter dataclasses say the same; stages list the code that they run."""

import ast
import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "gensync_core"
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = {name: stage.get("do", stage) for name, stage in DVC["stages"].items()}
# Reads all sections for all stages: which of them a stage uses is tracked by its `params:`.
NOT_CODE_OF_A_STAGE = {f"{PACKAGE}.params", f"{PACKAGE}.__main__"}
# Doors of the command line, not stages of the graph.
COMMANDS = {"check", "export"}


def module_path(module: str) -> Path | None:
    """File of a module of the core, or None where there is no such module."""
    path = ROOT / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def imports_of(module: str) -> frozenset[str]:
    """Modules of the core that a module imports anywhere in its text, type-checking blocks aside."""
    path = module_path(module)
    assert path is not None
    found: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(child for statement in node.body for child in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                parent = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            found.add(parent)
            found.update(f"{parent}.{alias.name}" for alias in node.names)
    return frozenset(name for name in found if name.startswith(f"{PACKAGE}.") and module_path(name) is not None)


def has_code(module: str) -> bool:
    """Whether a package's `__init__` does more than describe it."""
    path = module_path(module)
    assert path is not None
    body = [node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.Expr)]
    return path.name != "__init__.py" or bool(body)


@cache
def closure(stage: str) -> set[str]:
    """Files that a stage runs, relative to the root: its own module and whatever that imports, directly or not."""
    todo, seen = [f"{PACKAGE}.stages.{stage}"], set()
    while todo:
        module = todo.pop()
        if module in seen or module in NOT_CODE_OF_A_STAGE or module_path(module) is None:
            continue
        seen.add(module)
        parents = [".".join(module.split(".")[:end]) for end in range(2, module.count(".") + 1)]
        todo.extend([*imports_of(module), *parents])
    files = [path for module in seen if has_code(module) and (path := module_path(module))]
    return {str(file.relative_to(ROOT)) for path in files for file in (path, *data_of(path))}


def data_of(path: Path) -> list[Path]:
    """Files beside a module that its text names: tables and templates decide what it makes, as its code does."""
    return [path.with_name(name) for name in re.findall(r'with_name\("([^"]+)"\)', path.read_text())]


def code_deps(stage: str) -> list[str]:
    return [dep for dep in STAGES[stage]["deps"] if dep.startswith(f"{PACKAGE}/")]


def covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(dep + "/")


@pytest.mark.fault("module missing among a stage's deps")
@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_imports_is_among_its_deps(stage: str) -> None:
    missing = sorted(file for file in closure(stage) if not any(covers(dep, file) for dep in code_deps(stage)))
    assert not missing, f"dvc.yaml: stage {stage} runs code that is not among its deps: add {missing}"


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_code_that_it_does_not_run(stage: str) -> None:
    idle = [dep for dep in code_deps(stage) if not any(covers(dep, file) for file in closure(stage))]
    assert not idle, f"dvc.yaml: stage {stage} does not import {idle}"


def test_the_import_closure_follows_lazy_and_indirect_imports() -> None:
    assert f"{PACKAGE}/media/video.py" in closure("ingest")
    assert f"{PACKAGE}/errors.py" in closure("ingest"), "reached through artefacts only"
    assert f"{PACKAGE}/footage/sound_offset.npz" in closure("ingest"), "read by a module, not imported"
    assert not any("training" in file for file in closure("ingest"))


def test_every_stage_has_a_module_and_every_module_a_stage() -> None:
    modules = {path.stem for path in (ROOT / PACKAGE / "stages").glob("*.py")} - {"__init__"} - COMMANDS
    assert modules == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_calls_the_stage(stage: str) -> None:
    assert STAGES[stage]["cmd"].split()[:4] == ["python", "-m", PACKAGE, stage]


def test_params_yaml_has_exactly_the_fields_of_the_dataclasses() -> None:
    from gensync_core.params import Params, load_params

    params = load_params(ROOT / "params.yaml")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(content) == {field.name for field in dataclasses.fields(Params)}
    for name, section in content.items():
        if isinstance(section, dict):
            assert set(section) == {field.name for field in dataclasses.fields(getattr(params, name))}


def tracked_params(stage: str) -> set[str]:
    """Keys of `params.yaml` that a stage lists."""
    return {entry for entry in STAGES[stage].get("params", []) if isinstance(entry, str)}


def used_params(stage: str) -> set[str]:
    """Longest attribute chains `params.a.b` in the functions of a stage's module that get all parameters, as `a.b`."""
    path = ROOT / PACKAGE / "stages" / f"{stage}.py"
    used: set[str] = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef) or not takes_all_params(function):
            continue
        nodes = [node for statement in function.body for node in ast.walk(statement)]
        inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        chains = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and id(node) not in inner]
        used.update(chain.removeprefix("params.") for chain in chains if chain.startswith("params."))
        whole = [node for node in nodes if isinstance(node, ast.Name) and node.id == "params" and id(node) not in inner]
        assert not whole, f"{path}: hands all of `params` on, so nobody can tell which sections the stage depends on"
    return used


def takes_all_params(function: ast.FunctionDef) -> bool:
    """Whether a function has an argument `params: Params`."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    return any(a.arg == "params" and a.annotation and ast.unparse(a.annotation) == "Params" for a in arguments)


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_that_a_stage_uses_is_tracked(stage: str) -> None:
    tracked = tracked_params(stage)
    untracked = [use for use in used_params(stage) if not any(use == key or use.startswith(key + ".") for key in tracked)]
    assert not untracked, f"dvc.yaml: stage {stage} uses params {untracked} without listing them"


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_tracks_a_parameter_that_it_does_not_use(stage: str) -> None:
    used = used_params(stage)
    idle = [key for key in tracked_params(stage) if not any(use == key or use.startswith(key + ".") for use in used)]
    assert not idle, f"dvc.yaml: stage {stage} lists params {idle} that it does not use"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_how_it_is_to_be_executed(stage: str) -> None:
    from tasks.dvc_project import Policy

    assert set(STAGES[stage]["meta"]) == {field.name for field in dataclasses.fields(Policy)}


def test_the_sections_of_the_data_files_are_what_foreach_reads() -> None:
    assert DVC["vars"] == ["speakers.yaml", "synth.yaml", "finetune.yaml"]
    sources = {name: stage.get("foreach") for name, stage in DVC["stages"].items()}
    assert sources.pop("joint") is None
    assert sources.pop("adapt") == "${adapted}"
    assert sources.pop("synth") == "${jobs}"
    assert sources.pop("finetune") == "${finetuned}"
    assert set(sources.values()) == {"${speakers}"}
