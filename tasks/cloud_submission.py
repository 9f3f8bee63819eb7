"""A submission to the cloud: made once, noted in `.gensync/cloud/DIGEST.json`, found again by whoever comes next."""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gensync_core.artefacts import read_json, write_json
from gensync_core.errors import ArtefactBroken, UsageError
from gensync_core.paths import Project
from tasks import dvc_project, dvc_remote
from tasks.cloud_batch import BatchQueues, EntryState, JobRequest
from tasks.cloud_plan import SCHEMA_VERSION, Group, canonical, entry_to_json, lay_out
from tasks.code_bundle import make_bundle, put_bundle
from tasks.dvc_project import Node
from tasks.object_store import ObjectStore

_SHORT = 12
# Another attempt would end the same way: wrong usage, rejected footage, damaged artefact.
_FINAL_CODES = (2, 3, 4)
_DEPENDENCY = "Dependent Job failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudSettings:
    """Where things run.

    Attributes:
        store: `s3://bucket/prefix` for code, manifests, lock parts and DVC's remote.
        name: of the queues and job definitions, see `tasks.cloud_batch.BatchQueues`.
        poll_s: seconds between two looks at the jobs.
        cpu_only: stages that ask for a GPU go to the CPU queue, too.
    """

    store: str
    name: str = "gensync"
    poll_s: float = 15.0
    cpu_only: bool = False


@dataclass(kw_only=True, slots=True)
class CloudEntry:
    """A chain of a submission and what became of it.

    Attributes:
        id: unique within the submission.
        scope: speaker, synthesis job, or `shared`.
        stages: addresses, in order.
        part: key of its lock part.
        status: what Batch said last.
        exit_code: of the last attempt.
        reason: why it ended, in Batch's words.
        message: what the worker said when it failed.
        seconds: wall time of all attempts.
    """

    id: str
    scope: str
    stages: list[str]
    part: str
    status: str = "SUBMITTED"
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    seconds: float = 0.0

    def take(self, state: EntryState) -> None:
        """Note what Batch says."""
        self.status, self.exit_code, self.reason, self.seconds = state.status, state.exit_code, state.reason, state.seconds

    @property
    def rejected(self) -> bool:
        """Whether the footage or another input was refused."""
        return self.status == "FAILED" and self.exit_code == 3

    @property
    def hopeless(self) -> bool:
        """Whether another attempt would end the same way."""
        return self.status == "FAILED" and (self.exit_code in _FINAL_CODES or "timeout" in self.reason.lower())

    @property
    def blocked(self) -> bool:
        """Whether it never ran because one above it failed."""
        return self.status == "FAILED" and self.exit_code is None and _DEPENDENCY.lower() in self.reason.lower()


@dataclass(kw_only=True, slots=True)
class CloudJob:
    """One Batch job of a submission."""

    name: str
    title: str
    manifest: str
    gpu: bool
    vcpus: int
    memory_mib: int
    gpus: int
    attempt_s: int
    needs: list[tuple[int, bool]]
    entries: list[CloudEntry]
    job_id: str | None = None


@dataclass(kw_only=True, slots=True)
class Submission:
    """What was handed to the cloud together.

    Attributes:
        digest: of code, stages, remote and serial number: the same work is the same submission.
        serial: 1 for the project's first submission; what failed may be submitted again as it is.
        targets: what was asked for: stage addresses or kinds, each with the scope it was planned in.
        newcomers: speakers who are taken out again if their footage is rejected.
        jobs: each after those it needs.
        closed: everything has ended and was collected.
    """

    digest: str
    settings: CloudSettings
    serial: int
    targets: list[tuple[str, str | None]]
    newcomers: list[str]
    jobs: list[CloudJob]
    submitted_s: float = field(default_factory=time.time)
    closed: bool = False

    @property
    def entries(self) -> Iterator[tuple[CloudJob, CloudEntry]]:
        """All chains with their jobs."""
        return ((job, entry) for job in self.jobs for entry in job.entries)

    def save(self, project: Project) -> None:
        """Note it in the project."""
        write_json(_folder(project) / f"{self.digest[:_SHORT]}.json", asdict(self))

    def cost(self) -> dict[str, tuple[float, float]]:
        """vCPU-seconds and GPU-seconds of each speaker; stages of everybody under `shared`."""
        spent: dict[str, tuple[float, float]] = {}
        for job, entry in self.entries:
            vcpu_s, gpu_s = spent.get(entry.scope, (0.0, 0.0))
            spent[entry.scope] = (vcpu_s + entry.seconds * job.vcpus, gpu_s + entry.seconds * job.gpus)
        return spent


def load_all(project: Project) -> list[Submission]:
    """All submissions of the project, oldest first.

    Raises:
        ArtefactBroken: a note is damaged.
    """
    found = [_load(path) for path in _folder(project).glob("*.json")]
    return sorted(found, key=lambda submission: submission.submitted_s)


def _load(path: Path) -> Submission:
    content = read_json(path)
    try:
        jobs = [
            CloudJob(
                **{
                    **job,
                    "entries": [CloudEntry(**entry) for entry in job["entries"]],
                    "needs": [(index, aligned) for index, aligned in job["needs"]],
                }
            )
            for job in content["jobs"]
        ]
        fields = {key: value for key, value in content.items() if key not in ("schema_version", "jobs", "settings", "targets")}
        targets = [(target, scope) for target, scope in content["targets"]]
        return Submission(**fields, jobs=jobs, settings=CloudSettings(**content["settings"]), targets=targets)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactBroken(f"{path}: not a note of a submission ({error}); if no job runs any more, delete it") from error


def _folder(project: Project) -> Path:
    return project.root / ".gensync" / "cloud"


@contextmanager
def one_orchestrator(project: Project) -> Iterator[None]:
    """While open, no other process submits or collects for this project.

    Raises:
        UsageError: another one does.
    """
    path = _folder(project) / "orchestrator.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another gensync cloud command is at work in {project.root}; wait for it, or end it") from None
        yield


def prepare(
    project: Project,
    nodes: Sequence[Node],
    settings: CloudSettings,
    *,
    targets: Sequence[tuple[str, str | None]],
    newcomers: Sequence[str] = (),
) -> Submission:
    """Bring everything that workers need into the store, and note what is to be submitted; nothing runs yet.

    Raises:
        UsageError: credentials lie where they would travel, or the store's address is wrong.
        ArtefactBroken: an input is in no cache.
        StoreFailed: the store refused.
        CommandFailed: inputs could not be pushed.
    """
    store = ObjectStore(settings.store)
    remote = store.url("dvc")
    inputs = dvc_project.stage_inputs(project)
    if settings.cpu_only:
        nodes = [replace(node, policy=replace(node.policy, gpu=0)) for node in nodes]
    groups = lay_out(nodes, inputs)
    planned = {node.address for node in nodes}
    files = {name for address in planned for name in inputs[address].files}
    code, archive = make_bundle(project, files)
    put_bundle(store, code, archive)
    dvc_remote.use_remote(project, remote, alone=False)
    wanted = {name for group in groups for entry in group.entries for name in entry.pull} - planned
    dvc_remote.publish_inputs(project, sorted(wanted))

    serial = len(load_all(project)) + 1
    work = {"code": code, "remote": remote, "serial": serial, "groups": [asdict(group) for group in groups]}
    digest = hashlib.sha256(canonical(work)).hexdigest()
    parts = {entry.id: f"parts/{digest}/{entry.id}.json" for group in groups for entry in group.entries}
    jobs: list[CloudJob] = []
    for index, group in enumerate(groups):
        manifest = _put_manifest(store, code, remote, group, parts)
        jobs.append(_job(f"{settings.name}-{digest[:_SHORT]}-{index}", group, manifest, parts))
    submission = Submission(
        digest=digest,
        settings=settings,
        serial=serial,
        targets=list(targets),
        newcomers=list(newcomers),
        jobs=jobs,
    )
    submission.save(project)
    return submission


def _put_manifest(store: ObjectStore, code: str, remote: str, group: Group, parts: dict[str, str]) -> str:
    content = canonical(
        {
            "schema_version": SCHEMA_VERSION,
            "code": code,
            "remote": remote,
            "entries": [entry_to_json(entry, parts) for entry in group.entries],
        }
    )
    key = f"manifests/{hashlib.sha256(content).hexdigest()}.json"
    store.put_bytes(content, key)
    return store.url(key)


def _job(name: str, group: Group, manifest: str, parts: dict[str, str]) -> CloudJob:
    return CloudJob(
        name=name,
        title=group.title,
        manifest=manifest,
        gpu=group.gpus > 0,
        vcpus=group.vcpus,
        memory_mib=group.memory_mib,
        gpus=group.gpus,
        attempt_s=group.attempt_s,
        needs=[(index, index in group.aligned) for index in group.needs],
        entries=[
            CloudEntry(id=entry.id, scope=entry.scope, stages=[node.address for node in entry.stages], part=parts[entry.id])
            for entry in group.entries
        ],
    )


def submit(project: Project, submission: Submission, batch: BatchQueues) -> None:
    """Hand all jobs over that were not yet; may be repeated after any failure without anything running twice.

    Raises:
        CloudFailed: Batch refused.
    """
    for job in submission.jobs:
        if job.job_id is not None:
            continue
        needs = [(submission.jobs[index].job_id, aligned) for index, aligned in job.needs]
        job.job_id = batch.submit(
            JobRequest(
                name=job.name,
                gpu=job.gpu,
                manifest=job.manifest,
                size=len(job.entries),
                vcpus=job.vcpus,
                memory_mib=job.memory_mib,
                gpus=job.gpus,
                attempt_s=job.attempt_s,
                needs=tuple((job_id, aligned) for job_id, aligned in needs if job_id is not None),
            )
        )
        submission.save(project)


def read_parts(submission: Submission) -> tuple[list[dict[str, Any]], list[str]]:
    """Lock parts that the workers left, also those of chains that failed half-way, and ids of entries without one.

    Raises:
        StoreFailed: the store cannot be asked.
        ArtefactBroken: a part is damaged.
    """
    store = ObjectStore(submission.settings.store)
    parts: list[dict[str, Any]] = []
    absent: list[str] = []
    for _, entry in submission.entries:
        if store.exists(entry.part):
            parts.append(read_part(store, entry.part))
        else:
            absent.append(entry.id)
    return parts, absent


def read_part(store: ObjectStore, key: str) -> dict[str, Any]:
    """The stages of a lock part: address -> entry as `dvc.lock` has it.

    Raises:
        StoreFailed: it cannot be fetched.
        ArtefactBroken: it is damaged.
    """
    try:
        content = json.loads(store.get_bytes(key))
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {content['schema_version']}")
        return dict(content["stages"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactBroken(f"{store.url(key)}: not a part of a lock ({error})") from error
