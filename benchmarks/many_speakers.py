"""Makes a project of the real pipeline's shape with as many up-to-date speakers as wanted, whose stages do nothing.

Running thousands of stages through DVC would take days at worst: a few speakers are brought up with DVC's own code, and all
others are written as copies of one of them (registry, footage, outs, objects in the cache, entries in `dvc.lock`).
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from gensync_core.artefacts import sha256_of
from gensync_core.paths import Project
from gensync_core.speakers import Speaker
from tasks.dvc_project import read_lock
from tasks.process import command_env
from tasks.workspace import create_workspace, source_root

COHORT = ("c00000", "c00001", "c00002")
PATTERN = "a00000"
"""The adapted speaker whom all others are copies of; names have one length, so sizes stay right."""

_COMMAND = re.compile(r"^( +)cmd: python -m gensync_core (\w+).*$", re.MULTILINE)
_TRACKED_AS_FILE = 0o444


def make_project(folder: Path, adapted: int) -> Project:
    """A project with a small cohort and so many adapted speakers, all of whose stages are up to date.

    Raises:
        ValueError: nobody is to be adapted.
    """
    if adapted < 1:
        raise ValueError(f"{adapted} adapted speakers: at least one is needed, the pattern of the others")
    project = create_workspace(folder, source_root())
    pipeline = project.root / "dvc.yaml"
    pipeline.write_text(idle_pipeline(pipeline.read_text()))
    config = project.root / ".dvc" / "config"
    config.write_text(f"{config.read_text()}    site_cache_dir = {project.root / '.gensync' / 'site'}\n")
    enlist(project, {**dict.fromkeys(COHORT, "cohort"), PATTERN: "adapted"})
    _dvc(project, "add", "--quiet", *(f"data/raw/{name}.mp4" for name in (*COHORT, PATTERN)))
    _bring_up(project)
    copy_pattern(project, [name_of(number) for number in range(1, adapted)])
    return project


def _bring_up(project: Project) -> None:
    """Run every stage's command and have DVC hash, cache and describe the result: one process, one write of `dvc.lock`."""
    import networkx
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile
    from dvc.utils.serialize import dump_yaml

    entries = {}
    with Repo(str(project.root)) as repo, repo.lock:
        for stage in networkx.dfs_postorder_nodes(repo.index.graph):
            if stage.cmd:
                subprocess.run(stage.cmd, cwd=project.root, shell=True, check=True)
                stage.save(run_cache=False)
                stage.commit()
                entries[stage.name] = to_single_stage_lockfile(stage)
        dump_yaml(str(project.root / "dvc.lock"), {"schema": "2.0", "stages": entries})


def name_of(number: int) -> str:
    """The id of an adapted speaker."""
    return f"a{number:05d}"


def make_footage(path: Path, name: str) -> Path:
    """A file of a few bytes in place of a speaker's footage."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"footage of {name}\n")
    return path


def enlist(project: Project, groups: Mapping[str, str]) -> None:
    """Write footage and registry of speakers, without DVC: id -> group."""
    registry = project.registry()
    for name, group in groups.items():
        raw = make_footage(project.raw(name, ".mp4"), name)
        relative = raw.relative_to(project.root).as_posix()
        registry.speakers[name] = Speaker(id=name, raw=relative, sha256=sha256_of(raw), group=group)
    registry.save(project.speakers_file)


def idle_pipeline(text: str) -> str:
    """The text of a `dvc.yaml` with commands that do nothing but write a line of JSON into each of the stage's outs."""
    stages = yaml.safe_load(text)["stages"]

    def idle(match: re.Match[str]) -> str:
        indent, name = match[1], match[2]
        stage = stages[name].get("do", stages[name])
        outs = [next(iter(out)) if isinstance(out, dict) else out for kind in _OUTS for out in stage.get(kind, ())]
        files = [file for out in outs for file in _files_of(out)]
        folders = dict.fromkeys(str(Path(file).parent) for file in files)
        line = """printf '{"schema_version": 1, "file": "%s"}\\n' $out > $out"""
        command = f"mkdir -p {' '.join(folders)} && for out in {' '.join(files)}; do {line}; done"
        return f"{indent}cmd: >-\n{indent}  {command}"

    return _COMMAND.sub(idle, text)


_OUTS = ("outs", "metrics", "plots")


def _files_of(out: str) -> list[str]:
    """The cohort's folder holds a model and a log for each of its speakers; the other folder is never made here."""
    if Path(out).suffix:
        return [out]
    return [f"{out}/{name}{suffix}" for name in COHORT for suffix in (".safetensors", ".csv")]


def copy_pattern(project: Project, names: Iterable[str]) -> None:
    """Write adapted speakers as DVC would have left them, had it run their stages, each a copy of the pattern."""
    names = list(names)
    entries = {address: entry for address, entry in read_lock(project).items() if address.endswith(f"@{PATTERN}")}
    pattern = yaml.dump({PATTERN: entries}, Dumper=yaml.CSafeDumper, sort_keys=False).partition("\n")[2]
    raw = project.raw(PATTERN, ".mp4")
    files = [raw, *(project.root / out["path"] for entry in entries.values() for out in entry["outs"])]
    uncached = {path for path in files if not _cached(project, _md5(path.read_bytes())).exists()}
    with (project.root / "dvc.lock").open("a") as lock:
        for name in names:
            lock.write(_copy_speaker(project, name, pattern, files, uncached))
    registry = project.registry()
    for name in names:
        relative = project.raw(name, ".mp4").relative_to(project.root).as_posix()
        sha256 = sha256_of(project.root / relative)
        registry.speakers[name] = Speaker(id=name, raw=relative, sha256=sha256, group="adapted")
    registry.save(project.speakers_file)


def _copy_speaker(project: Project, name: str, pattern: str, files: Iterable[Path], uncached: set[Path]) -> str:
    """Write a copy's files and cached objects; returns its part of `dvc.lock`."""
    replaced = {PATTERN: name}
    for path in files:
        content = path.read_bytes()
        copied = content.replace(PATTERN.encode(), name.encode())
        target = project.root / str(path.relative_to(project.root)).replace(PATTERN, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(copied)
        replaced |= {_md5(content): _md5(copied)}
        replaced |= {hashlib.sha256(content).hexdigest(): hashlib.sha256(copied).hexdigest()}
        if path not in uncached:
            cached = _cached(project, _md5(copied))
            cached.parent.mkdir(parents=True, exist_ok=True)
            cached.write_bytes(copied)
            cached.chmod(_TRACKED_AS_FILE)
    tracked = project.raw(PATTERN, ".mp4.dvc")
    project.raw(name, ".mp4.dvc").write_text(_substituted(tracked.read_text(), replaced))
    return _substituted(pattern, replaced)


def _substituted(text: str, replaced: Mapping[str, str]) -> str:
    return re.sub("|".join(replaced), lambda match: replaced[match[0]], text)


def _cached(project: Project, md5: str) -> Path:
    return project.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _dvc(project: Project, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    subprocess.run(command, cwd=project.root, env=command_env(), check=True)
