"""Stages run by AWS Batch instead of here: submitted, followed, collected, and what failed submitted again alone.

DVC still decides what has to run; Prefect shows it. Nothing is executed on this machine.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from gensync_core.artefacts import sha256_of
from gensync_core.errors import ArtefactBroken, FootageRejected
from gensync_core.paths import Project
from gensync_core.progress import parse_line
from gensync_core.speakers import Speaker
from tasks import cloud_collect, registration
from tasks.cloud_batch import BatchQueues, EntryState, ended
from tasks.cloud_submission import CloudEntry, CloudJob, CloudSettings, Submission, load_all, one_orchestrator, prepare, submit
from tasks.cloud_worker import EVENT
from tasks.dvc_project import Node, plan
from tasks.lock_merge import done_elsewhere
from tasks.process import ERROR_LINE, CommandFailed
from tasks.stage_task import StageWatcher

How = Literal["pull", "lock", "run-cache"]
Target = tuple[str, str | None]
_JOBS_AT_ONCE = 32
_watcher: StageWatcher | None = None


def use_watcher(watcher: StageWatcher | None) -> None:
    """Choose who is told of stages' progress, for the whole process."""
    global _watcher
    _watcher = watcher


def _runner() -> Any:
    """Follows so many jobs at once; following is waiting."""
    return ThreadPoolTaskRunner(max_workers=_JOBS_AT_ONCE)


@dataclass(kw_only=True, slots=True)
class CloudResult:
    """What a run in the cloud came to.

    Attributes:
        merged: stages whose results are in `dvc.lock` now.
        refused: stages that ran but were not taken over: address -> reason.
        rejected: newcomers whose footage was refused, and who were taken out again.
        failures: chains that failed for good: a line each.
        cost: speaker -> vCPU-seconds and GPU-seconds.
        first_error: exit code of the first failure.
    """

    merged: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    cost: dict[str, tuple[float, float]] = field(default_factory=dict)
    first_error: int = 0

    def raise_failures(self) -> None:
        """Turn what went wrong into an error.

        Raises:
            CommandFailed: with the exit code of the first failure.
        """
        said = [*self.failures, *(f"{address}: not taken over: {reason}" for address, reason in self.refused.items())]
        if said:
            raise CommandFailed(
                "cloud", "; ".join(said), exit_code=self.first_error or ArtefactBroken.exit_code, retryable=False
            )


def cost_lines(cost: dict[str, tuple[float, float]]) -> list[str]:
    """What each speaker took, for people."""
    return [f"{scope}: {vcpu_s:.0f} vCPU-s, {gpu_s:.0f} GPU-s" for scope, (vcpu_s, gpu_s) in sorted(cost.items())]


@flow(name="cloud_onboard", task_runner=_runner())
def cloud_onboard(
    root: Path,
    videos: dict[str, Path],
    settings: CloudSettings,
    group: Literal["auto", "cohort", "adapted"] = "auto",
    train: bool = False,
    collect: How = "pull",
    resubmit: int = 1,
) -> CloudResult:
    """Onboard speakers at once, each by workers of its own.

    Args:
        root: the project's folder.
        videos: id -> footage.
        settings: where things run.
        group: `auto` takes the cohort as long as there is no shared model.
        train: train the cohort afterwards, and evaluate it.
        collect: see `tasks.cloud_collect.collect`.
        resubmit: how often what failed is submitted again.

    Raises:
        FootageRejected: an id is not allowed or taken. Footage that a worker refuses is in the result, and its speaker is
            taken out again.
        UsageError: there is no shared model to adapt to, or another command is at work.
    """
    project = Project(root)
    with one_orchestrator(project):
        result = _earlier(project, collect)
        newcomers = [_register(project, speaker, video, group) for speaker, video in videos.items()]
        targets = [(target, speaker.id) for speaker in newcomers for target in registration.onboarding_targets(speaker)]
        if train:
            targets += [(target, None) for target in registration.cohort_targets(project)]
        _run(project, targets, [speaker.id for speaker in newcomers], settings, collect, resubmit, result)
    return result


@flow(name="cloud_repro", task_runner=_runner())
def cloud_repro(
    root: Path, targets: list[Target], settings: CloudSettings, collect: How = "pull", resubmit: int = 1
) -> CloudResult:
    """Bring targets up to date; what an earlier command submitted and did not see the end of is followed first.

    Raises:
        UsageError: a target is not in the graph, or another command is at work.
    """
    project = Project(root)
    with one_orchestrator(project):
        result = _earlier(project, collect)
        _run(project, targets, [], settings, collect, resubmit, result)
    return result


@flow(name="cloud_attach", task_runner=_runner())
def cloud_attach(root: Path, collect: How = "pull") -> CloudResult:
    """Follow and collect what was submitted and not seen to its end; nothing new is submitted."""
    project = Project(root)
    with one_orchestrator(project):
        result = CloudResult()
        _attach_open(project, collect, result)
    return result


def _register(project: Project, speaker_id: str, video: Path, group: str) -> Speaker:
    """An interrupted onboarding of the same footage is gone on with; the gate is asked by the worker."""
    known = project.registry().speakers.get(speaker_id)
    if known is not None and video.is_file() and sha256_of(video) == known.sha256:
        return known
    registration.check_new_speaker(project, speaker_id)
    if not video.is_file():
        raise FootageRejected(f"{video}: no such file")
    return registration.add_speaker(project, video, speaker_id, registration.choose_group(project, group))


def _attach_open(project: Project, collect: How, result: CloudResult) -> None:
    for submission in load_all(project):
        if not submission.closed:
            get_run_logger().info(f"attaching to submission {submission.digest[:12]}")
            _finish(project, submission, collect, result)


def _earlier(project: Project, collect: How) -> CloudResult:
    """The end of what an earlier command submitted; what failed is out of date still, and submitted again where asked for."""
    result = CloudResult()
    _attach_open(project, collect, result)
    for failure in (*result.failures, *result.refused.values()):
        get_run_logger().warning(f"earlier submission: {failure}")
    result.failures, result.refused, result.first_error = [], {}, 0
    return result


def _run(
    project: Project,
    targets: Sequence[Target],
    newcomers: list[str],
    settings: CloudSettings,
    collect: How,
    resubmit: int,
    result: CloudResult,
) -> None:
    """Submit what is out of date, and again what failed and may yet succeed."""
    hopeless: set[str] = set()
    for last in [False] * resubmit + [True]:
        wanted = [(target, scope) for target, scope in targets if scope_kept(target, scope, result.rejected)]
        nodes = _without(_dirty(project, wanted), hopeless)
        if not nodes:
            return
        submission = prepare(project, nodes, settings, targets=wanted, newcomers=newcomers)
        failed = _finish(project, submission, collect, result, final=last)
        hopeless |= {address for entry in failed if entry.hopeless for address in entry.stages}
        if not failed:
            return


def scope_kept(target: str, scope: str | None, rejected: Iterable[str]) -> bool:
    """Whether a target is still there after speakers were taken out."""
    return not {scope, target.partition("@")[2]} & set(rejected)


def _dirty(project: Project, targets: Iterable[Target]) -> list[Node]:
    """Stages to run, each after those it depends on; those whose results are merely not on this machine do not count."""
    by_scope: dict[str | None, list[str]] = {}
    for target, scope in targets:
        by_scope.setdefault(scope, []).append(target)
    found: dict[str, Node] = {}
    for scope in sorted(by_scope, key=lambda scope: (scope is None, scope)):
        # A later plan sees more of what a stage depends on.
        for node in plan(project, by_scope[scope], scope=scope):
            found.pop(node.address, None)
            found[node.address] = node
    done = done_elsewhere(project, found)
    return [
        Node(address=node.address, deps=tuple(dep for dep in node.deps if dep not in done), policy=node.policy)
        for node in found.values()
        if node.address not in done
    ]


def _without(nodes: Iterable[Node], hopeless: set[str]) -> list[Node]:
    """The nodes without those that failed for good and whatever depends on them."""
    dropped = set(hopeless)
    kept: list[Node] = []
    for node in nodes:
        if node.address in dropped or dropped & set(node.deps):
            dropped.add(node.address)
        else:
            kept.append(node)
    return kept


def _finish(
    project: Project, submission: Submission, collect: How, result: CloudResult, *, final: bool = True
) -> list[CloudEntry]:
    """Submit what is not, follow it to its end, take its results over; returns the chains that failed."""
    submit(project, submission, BatchQueues(submission.settings.name))
    futures = [
        follow_job.with_options(name=job.title, task_run_name=f"{job.title} x {len(job.entries)}").submit(
            job, submission.settings
        )
        for job in submission.jobs
    ]
    for job, future in zip(submission.jobs, futures, strict=True):
        job.entries = future.result()
    submission.save(project)
    merge = cloud_collect.collect(project, submission, collect)
    result.merged += merge.merged
    result.refused |= merge.refused
    for scope, (vcpu_s, gpu_s) in submission.cost().items():
        before = result.cost.get(scope, (0.0, 0.0))
        result.cost[scope] = (before[0] + vcpu_s, before[1] + gpu_s)
    failed = [entry for _, entry in submission.entries if entry.status == "FAILED"]
    for entry in failed:
        if entry.rejected and entry.scope in submission.newcomers:
            registration.remove_speaker(project, entry.scope)
            result.rejected.append(entry.scope)
        if entry.hopeless or (final and not entry.blocked):
            result.failures.append(f"{entry.scope}: {entry.message or entry.reason or 'failed'}")
            result.first_error = result.first_error or entry.exit_code or 1
    submission.closed = True
    submission.save(project)
    create_table_artifact(key="cloud", table=[_row(job, entry) for job, entry in submission.entries])
    return failed


def _row(job: CloudJob, entry: CloudEntry) -> dict[str, Any]:
    return {
        "speaker": entry.scope,
        "stages": job.title,
        "result": entry.status.lower(),
        "message": entry.message,
        "vcpu_s": round(entry.seconds * job.vcpus, 1),
        "gpu_s": round(entry.seconds * job.gpus, 1),
    }


@task(name="follow", cache_policy=NO_CACHE, persist_result=False, retries=3, retry_delay_seconds=10)
def follow_job(job: CloudJob, settings: CloudSettings) -> list[CloudEntry]:
    """Wait for a job's end while its workers' logs are shown; may be done again at any time.

    Raises:
        CloudFailed: Batch cannot be asked.
    """
    batch = BatchQueues(settings.name)
    assert job.job_id is not None, "followed before it was submitted"
    readers = [LogReader(batch, entry, get_run_logger().info) for entry in job.entries]
    while True:
        states = batch.entries(job.job_id, len(job.entries))
        for entry, state, reader in zip(job.entries, states, readers, strict=True):
            entry.take(state)
            reader.read(state)
        if ended(states):
            return job.entries
        time.sleep(settings.poll_s)


class LogReader:
    """Reads on in the logs of one worker and its later attempts."""

    def __init__(self, batch: BatchQueues, entry: CloudEntry, show: Callable[[str], None]) -> None:
        self.batch, self.entry, self.show = batch, entry, show
        self._tokens: dict[str, str | None] = {}
        self._finished = False
        self._stage: str | None = None

    def read(self, state: EntryState) -> None:
        """Show what is new; once after the end, then no more."""
        if self._finished:
            return
        for stream in state.streams[-1:] if state.status == "RUNNING" else state.streams:
            lines, self._tokens[stream] = self.batch.read_log(stream, self._tokens.get(stream))
            for line in lines:
                self._take(line)
        self._finished = ended([state])

    def _take(self, line: str) -> None:
        if match := ERROR_LINE.match(line):
            self.entry.message = match[2]
        if line.startswith(EVENT):
            event = json.loads(line.removeprefix(EVENT))
            self._stage = event["address"]
            _tell(event)
        elif (tick := parse_line(line)) is not None:
            if _watcher is not None and self._stage is not None:
                _watcher.ticked(self._stage, tick)
        elif line:
            self.show(f"[{self.entry.scope}] {line}")


def _tell(event: dict[str, Any]) -> None:
    if _watcher is None:
        return
    if event["state"] == "started":
        _watcher.started(event["address"])
    else:
        _watcher.ended(event["address"], event["state"], event["seconds"])
