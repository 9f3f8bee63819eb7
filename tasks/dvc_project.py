"""What we ask of DVC: which stages of its graph have to run, to run one of them, to add a file.

`dvc.yaml` is the only graph; nothing here names a stage. DVC's Python API is used for reading only, from the main thread
only; whatever runs or writes is a `dvc` process of its own.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gensync_core.errors import ArtefactBroken, UsageError
from gensync_core.paths import Project
from tasks.process import raise_for, run_command

How = Literal["executed", "unchanged", "run-cache"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a stage is to be executed: its `meta:` in `dvc.yaml`, which does not dirty the stage.

    Attributes:
        retries: further attempts after a failure that another attempt may mend.
        retry_delay_s: seconds before the next attempt.
        deadline_s: seconds after which the attempt is ended; None: never.
        cpu: cores that the stage may load.
        memory_gb: memory that the stage needs.
    """

    retries: int = 1
    retry_delay_s: float = 5.0
    deadline_s: float | None = None
    cpu: int = 1
    memory_gb: float = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A stage that has to run.

    Attributes:
        address: DVC's name of it, `ingest@alice`.
        deps: addresses of those stages of the same plan that must run before.
        policy: how to execute it.
    """

    address: str
    deps: tuple[str, ...]
    policy: Policy

    @property
    def kind(self) -> str:
        """The stage without its speaker or job."""
        return self.address.partition("@")[0]


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
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(project.root), _wait_for_lock=True) as repo, repo.lock:
            graph = repo.index.graph
            stages = {stage.name: stage for stage in graph if stage.cmd}
            wanted: set[str] = set()
            for target in targets:
                found = [address for address in stages if target in (address, address.partition("@")[0])]
                if not found:
                    raise UsageError(f"no stage {target!r} in {project.root / 'dvc.yaml'}")
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
    except DvcException as error:
        raise ArtefactBroken(f"{project.root}: DVC cannot read the project ({error})") from error


def _policy(address: str, meta: dict[str, Any] | None) -> Policy:
    try:
        return Policy(**(meta or {}))
    except TypeError as error:
        raise ArtefactBroken(f"dvc.yaml: meta of {address}: {error}") from error


def reproduce(project: Project, node: Node, *, on_line: Callable[[str], None] | None = None) -> How:
    """Run one stage by `dvc repro -s`; DVC decides again whether it has to run at all.

    Args:
        project: the folder with `dvc.yaml`.
        node: the stage, from `plan`.
        on_line: gets each line of DVC's and the stage's output.

    Raises:
        CommandFailed: with the exit code and message that the stage gave.
    """
    how: How = "unchanged"

    def watch(line: str) -> None:
        nonlocal how
        if line.startswith("Running stage"):
            how = "executed"
        elif "is cached - skipping run" in line:
            how = "run-cache"
        if on_line is not None:
            on_line(line)

    log_file = project.root / ".gensync" / "logs" / f"{node.address.replace('@', '-')}.log"
    outcome = run_command(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", node.address],
        cwd=project.root,
        env={**thread_env(node.policy.cpu), "GENSYNC_PROGRESS": "lines"},
        deadline_s=node.policy.deadline_s,
        on_line=watch,
        log_file=log_file,
    )
    raise_for(outcome, node.address, log_file)
    return how


def thread_env(cpu: int) -> dict[str, str]:
    """Variables that keep a child's numerical libraries to `cpu` threads (never more than the machine has)."""
    threads = str(max(1, min(cpu, os.cpu_count() or 1)))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return dict.fromkeys(names, threads)


def add_file(project: Project, path: Path) -> None:
    """`dvc add` a file of the project.

    Raises:
        CommandFailed: DVC refused.
    """
    _dvc(project, "add", "--quiet", str(path.relative_to(project.root)))


def forget_file(path: Path) -> None:
    """Remove a file that was added, and its `.dvc` file; the copy in DVC's cache stays until `dvc gc`."""
    path.with_name(path.name + ".dvc").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _dvc(project: Project, *arguments: str) -> None:
    command: Sequence[str] = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    raise_for(run_command(command, cwd=project.root), f"dvc {arguments[0]}")
