"""What we ask of DVC: which stages of its graph have to run, to run one of them, to add a file.

`dvc.yaml` is the only graph; nothing here names a stage. DVC's Python API is used for reading only, from the main thread
only; whatever runs or writes is a `dvc` process of its own.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from gensync_core.artefacts import atomic_path
from gensync_core.errors import ArtefactBroken, GenSyncError, UsageError
from gensync_core.paths import Project
from tasks import dvc_slice
from tasks.lock_text import dump_yaml, load_yaml
from tasks.process import CommandFailed, Outcome, raise_for, run_command

# How DVC says that another process of its own is at work on the same files.
_BUSY_LINE = "is busy, it is being blocked by:"
_DVC = Path(__file__).with_name("dvc_process.py")
_PATIENCE_S, _POLL_S = 30.0, 0.3  # a run that was killed just now is still taken to be at work for a moment
How = Literal["executed", "unchanged", "run-cache"]


class Busy(GenSyncError):
    """Another run of DVC is at work on the same files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a stage is to be executed: its `meta:` in `dvc.yaml`, which does not dirty the stage.

    Attributes:
        retries: further attempts after a failure that another attempt may mend.
        retry_delay_s: seconds before the next attempt.
        deadline_s: seconds after which the attempt is ended; None: never.
        cpu: cores that the stage may load.
        memory_gb: memory that the stage needs.
        gpu: GPUs that the stage needs.
    """

    retries: int = 1
    retry_delay_s: float = 5.0
    deadline_s: float | None = None
    cpu: int = 1
    memory_gb: float = 2.0
    gpu: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A stage that has to run.

    Attributes:
        address: DVC's name of it, `ingest@alice`.
        deps: addresses of those stages of the same plan that must run before.
        policy: how to execute it.
        sliced: the adapted speaker in whose slice of the project it runs; None: in the project itself.
    """

    address: str
    deps: tuple[str, ...]
    policy: Policy
    sliced: str | None = None

    @property
    def kind(self) -> str:
        """The stage without its speaker or job."""
        return self.address.partition("@")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageInputs:
    """Where what a stage reads comes from; paths are relative to the project.

    Attributes:
        command: what the stage runs.
        stages: addresses of the stages that write something it reads.
        tracked: `.dvc` files that stand for something it reads.
        files: files and folders that lie in the project as they are: code, settings, speech.
        outs: what it writes.
    """

    command: str
    stages: tuple[str, ...]
    tracked: tuple[str, ...]
    files: tuple[str, ...]
    outs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageHashes:
    """What a stage's files are now: path -> DVC's hash, None where nothing is there; parameters: file -> key -> value."""

    deps: dict[str, str | None]
    params: dict[str, dict[str, Any]]
    outs: dict[str, str | None]


def stage_inputs(project: Project) -> dict[str, StageInputs]:
    """Every stage of the graph, each after those that it depends on.

    Raises:
        ArtefactBroken: `dvc.yaml` or a file it reads cannot be used.
    """
    import networkx

    with _repo(project) as repo:
        graph = repo.index.graph
        return {
            stage.name: _inputs_of(stage, list(graph.successors(stage)))
            for stage in networkx.dfs_postorder_nodes(graph)
            if stage.cmd
        }


def _inputs_of(stage: Any, above: list[Any]) -> StageInputs:
    written = [Path(out.fs_path) for upper in above for out in upper.outs]
    plain = [
        dep.def_path
        for dep in stage.deps
        if dep.hash_name != "params"
        and not any(Path(dep.fs_path).is_relative_to(out) or out.is_relative_to(dep.fs_path) for out in written)
    ]
    return StageInputs(
        command=str(stage.cmd),
        stages=tuple(sorted(upper.name for upper in above if upper.cmd)),
        tracked=tuple(sorted(upper.path_in_repo for upper in above if not upper.cmd)),
        files=tuple(plain),
        outs=tuple(out.def_path for out in stage.outs),
    )


def current_hashes(project: Project, addresses: Iterable[str]) -> dict[str, StageHashes]:
    """What DVC would record of stages if they were run now, without running them.

    Raises:
        ArtefactBroken: `dvc.yaml` or a file it reads cannot be used.
    """
    wanted = set(addresses)
    with _repo(project) as repo:
        return {
            stage.name: StageHashes(
                deps={dep.def_path: _hash_of(dep) for dep in stage.deps if dep.hash_name != "params"},
                params={dep.def_path: dep.read_params() for dep in stage.deps if dep.hash_name == "params"},
                outs={out.def_path: _hash_of(out) for out in stage.outs},
            )
            for stage in repo.index.stages
            if stage.cmd and stage.name in wanted
        }


def _hash_of(item: Any) -> str | None:
    return item.get_hash().value if item.exists else None


def enter_results(project: Project, entries: Mapping[str, Any]) -> None:
    """Write what stages made elsewhere into `dvc.lock`, in place of what stood there: address -> entry.

    Raises:
        ArtefactBroken: `dvc.lock` cannot be read.
    """
    if not entries:
        return
    path = project.root / "dvc.lock"
    with _repo(project):
        content = {"schema": "2.0", "stages": read_lock(project) | dict(entries)}
        with atomic_path(path) as temporary:
            temporary.write_text(dump_yaml(content))


def read_lock(project: Project) -> dict[str, Any]:
    """What `dvc.lock` says of each stage; empty where there is none.

    Raises:
        ArtefactBroken: the file is damaged.
    """
    path = project.root / "dvc.lock"
    try:
        stages = (load_yaml(path.read_bytes()) or {}).get("stages") or {}
        return dict(stages)
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ArtefactBroken(f"{path}: cannot be read ({error}); restore it from version control") from error


@contextmanager
def _repo(project: Project) -> Iterator[Any]:
    """The project as DVC sees it, with DVC's lock held."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo(str(project.root), _wait_for_lock=True) as repo, repo.lock:
            yield repo
    except LockError as error:
        raise Busy(
            f"{project.root}: another run is at work on its files ({str(error).splitlines()[0]}); try again later"
        ) from error
    except DvcException as error:
        raise ArtefactBroken(f"{project.root}: DVC cannot read the project ({error})") from error


def plan(project: Project, targets: Iterable[str], *, scope: str | None = None) -> list[Node]:
    """Of the targets and what they depend on: stages that are dirty or below a dirty one, each after those it depends on.

    Args:
        project: the folder with `dvc.yaml`.
        targets: stage addresses or kinds (`joint`, `evaluate@alice`, `ingest`).
        scope: only stages of this speaker or job; what they need from others is taken as it is. So a newcomer is
            adapted to the shared network that is there, even where a changed cohort would have it trained again.

    Raises:
        UsageError: a target is not in the graph.
        ArtefactBroken: `dvc.yaml` or a file it reads cannot be used.
        Busy: another run did not end within half a minute.
    """
    sliced = dvc_slice.sliced_speaker(project, scope)
    until = time.monotonic() + _PATIENCE_S
    with dvc_slice.planning(project, sliced) as place:
        while True:
            try:
                nodes = _plan(place, targets, scope)
                break
            except Busy:
                if time.monotonic() > until:
                    raise
                time.sleep(_POLL_S)
    if sliced is not None and not nodes:
        dvc_slice.close_slice(project, sliced)
    return [replace(node, sliced=sliced) for node in nodes]


def _plan(project: Project, targets: Iterable[str], scope: str | None) -> list[Node]:
    import networkx

    with _repo(project) as repo:
        graph = repo.index.graph
        stages = {stage.name: stage for stage in graph if stage.cmd}
        wanted: set[str] = set()
        for target in targets:
            found = [address for address in stages if target in (address, address.partition("@")[0])]
            if not found:
                raise UsageError(f"no stage {target!r} in {(project.root / 'dvc.yaml').resolve()}")
            wanted.update(found)
            for address in found:
                wanted.update(stage.name for stage in networkx.descendants(graph, stages[address]) if stage.cmd)
        if scope is not None:
            wanted = {address for address in wanted if address.partition("@")[2] == scope}
        above = {a: {s.name for s in graph.successors(stages[a]) if s.cmd and s.name in wanted} for a in wanted}
        order = [stage.name for stage in networkx.dfs_postorder_nodes(graph) if stage.cmd and stage.name in wanted]
        dirty: set[str] = set()
        for address in order:
            if above[address] & dirty or stages[address].status():
                dirty.add(address)
        return [
            Node(address=a, deps=tuple(sorted(above[a] & dirty)), policy=_policy(a, stages[a].meta))
            for a in order
            if a in dirty
        ]


def _policy(address: str, meta: dict[str, Any] | None) -> Policy:
    try:
        return Policy(**(meta or {}))
    except TypeError as error:
        raise ArtefactBroken(f"dvc.yaml: meta of {address}: {error}") from error


def reproduce(
    project: Project,
    node: Node,
    *,
    on_line: Callable[[str], None] | None = None,
    pull: bool = False,
    execute: bool = True,
    grace_s: float = 20.0,
) -> How:
    """Run one stage by `dvc repro -s`; DVC decides again whether it has to run at all.

    Args:
        project: the folder with `dvc.yaml`.
        node: the stage, from `plan`.
        on_line: gets each line of DVC's and the stage's output.
        pull: take the result of an equal run from the remote's run cache where there is one.
        execute: False: fail rather than run the stage's command.
        grace_s: seconds that a stage has to save its state when it is told to end.

    Raises:
        CommandFailed: with the exit code and message that the stage gave.
    """
    how: How = "unchanged"
    # A slice is gone one day; what lies there is the project's.
    slice_root, root = str(dvc_slice.folder_of(project, node.sliced)), str(project.root)

    def watch(line: str) -> None:
        nonlocal how
        if line.startswith("Running stage"):
            how = "executed"
        elif "is cached - skipping run" in line:
            how = "run-cache"
        if on_line is not None:
            on_line(line.replace(slice_root, root))

    log_file = project.root / ".gensync" / "logs" / f"{node.address.replace('@', '-')}.log"
    with dvc_slice.running(project, node.sliced, node.address) as place:
        outcome = run_command(
            _dvc_command("repro", "-s", *(["--pull"] if pull else []), node.address),
            cwd=place.root,
            # DVC hands a stage's command to this shell.
            env={
                **thread_env(node.policy.cpu),
                "GENSYNC_PROGRESS": "lines",
                **({} if execute else {"SHELL": "/bin/false"}),
            },
            deadline_s=node.policy.deadline_s,
            on_line=watch,
            log_file=log_file,
            grace_s=grace_s,
        )
    outcome = _renamed(outcome, slice_root, root)
    if outcome.exit_code and any(_BUSY_LINE in line for line in outcome.tail):
        raise CommandFailed(
            node.address, f"busy: another run is at work on its files; try again later; full output in {log_file}"
        )
    raise_for(outcome, node.address, log_file)
    return how


def _renamed(outcome: Outcome, old: str, new: str) -> Outcome:
    """The outcome with a folder's name replaced in what was said."""
    error = outcome.error and (outcome.error[0], outcome.error[1].replace(old, new))
    return replace(outcome, tail=tuple(line.replace(old, new) for line in outcome.tail), error=error)


def thread_env(cpu: int) -> dict[str, str]:
    """Variables that keep a child's numerical libraries to `cpu` threads (never more than the machine has)."""
    threads = str(max(1, min(cpu, os.cpu_count() or 1)))
    libraries = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    names = (*(f"{library}_NUM_THREADS" for library in libraries), "OPENCV_FOR_THREADS_NUM")
    return dict.fromkeys(names, threads)


def add_file(project: Project, path: Path) -> None:
    """`dvc add` a file of the project.

    Raises:
        CommandFailed: DVC refused.
    """
    dvc_slice.add_file(project, path, lambda place, added: _dvc(place, "add", "--quiet", str(added.relative_to(place.root))))


def forget_file(path: Path) -> None:
    """Remove a file that was added, and its `.dvc` file; the copy in DVC's cache stays until `dvc gc`."""
    path.with_name(path.name + ".dvc").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _dvc(project: Project, *arguments: str) -> None:
    raise_for(run_command(_dvc_command(*arguments), cwd=project.root), f"dvc {arguments[0]}")


def _dvc_command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", str(_DVC), "--wait-for-lock", *arguments]
