"""AWS Batch: jobs submitted once, looked at, their logs read, ended; the other door to boto3.

Region, endpoint and credentials come from boto3's own chain; none of them is taken as an argument, logged or written.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from gensync_core.errors import GenSyncError

DONE = ("SUCCEEDED", "FAILED")
_PATIENT = Config(retries={"mode": "adaptive", "max_attempts": 10}, connect_timeout=10, read_timeout=60)
# AWS Batch: ids in one DescribeJobs.
_AT_ONCE = 100
# The first rule that fits decides; at most five. What fits none would be tried again.
RETRY_STRATEGY: dict[str, Any] = {
    "attempts": 5,
    "evaluateOnExit": [
        {"onStatusReason": "Host EC2*", "action": "RETRY"},
        {"onReason": "OutOfMemoryError*", "action": "EXIT"},
        {"onExitCode": "143", "action": "RETRY"},
        {"onExitCode": "137", "action": "RETRY"},
        {"onReason": "*", "action": "EXIT"},
    ],
}


class CloudFailed(GenSyncError):
    """AWS did not do what it was asked; the message says what AWS said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """What is submitted.

    Attributes:
        name: unique; a job of that name is not submitted twice.
        gpu: whether it goes to the GPU queue.
        manifest: address of the manifest, the worker's argument.
        size: entries.
        vcpus: cores of each.
        memory_mib: memory of each.
        gpus: GPUs of each.
        attempt_s: seconds after which an attempt is ended.
        needs: jobs that have to end well before, and whether entry by entry.
    """

    name: str
    gpu: bool
    manifest: str
    size: int
    vcpus: int
    memory_mib: int
    gpus: int
    attempt_s: int
    needs: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryState:
    """What Batch says of one entry.

    Attributes:
        status: SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING, SUCCEEDED or FAILED.
        exit_code: of the last attempt, where there is one.
        reason: why it ended, in Batch's words.
        streams: log streams of its attempts, the last one last.
        seconds: wall time of all attempts.
    """

    status: str
    exit_code: int | None
    reason: str
    streams: tuple[str, ...]
    seconds: float


class BatchQueues:
    """The queues and job definitions that `infra/gensync.yaml` makes: `NAME-cpu` and `NAME-gpu`, logs in `/gensync/NAME`."""

    def __init__(self, name: str, log_group: str | None = None) -> None:
        self.name = name
        self.log_group = log_group or f"/gensync/{name}"
        with _explained("AWS"):
            session = boto3.Session()  # boto3's default session is not for several threads
            self._batch: Any = session.client("batch", config=_PATIENT)
            self._logs: Any = session.client("logs", config=_PATIENT)

    def submit(self, job: JobRequest) -> str:
        """Submit a job and return its id; one of that name that is there already is taken for it.

        So nothing runs twice if we died between the submission and the note of its id.

        Raises:
            CloudFailed: Batch refused.
        """
        queue = f"{self.name}-{'gpu' if job.gpu else 'cpu'}"
        found = self.find(job.name, queue)
        if found is not None:
            return found
        resources = [{"type": "VCPU", "value": str(job.vcpus)}, {"type": "MEMORY", "value": str(job.memory_mib)}]
        if job.gpus:
            resources.append({"type": "GPU", "value": str(job.gpus)})
        with _explained(f"job {job.name}"):
            answer = self._batch.submit_job(
                jobName=job.name,
                jobQueue=queue,
                jobDefinition=queue,
                containerOverrides={
                    "command": ["python", "-m", "tasks.cloud_worker", job.manifest],
                    "resourceRequirements": resources,
                },
                retryStrategy=RETRY_STRATEGY,
                timeout={"attemptDurationSeconds": max(60, job.attempt_s)},
                dependsOn=[{"jobId": id, "type": "N_TO_N"} if aligned else {"jobId": id} for id, aligned in job.needs],
                # An array has two entries or more.
                **({"arrayProperties": {"size": job.size}} if job.size > 1 else {}),
            )
        return answer["jobId"]

    def find(self, name: str, queue: str) -> str | None:
        """Id of the job of that name, unless Batch has forgotten it (a week after its end).

        Raises:
            CloudFailed: Batch cannot be asked.
        """
        with _explained(f"queue {queue}"):
            pages = self._batch.get_paginator("list_jobs").paginate(
                jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [name]}]
            )
            found = [job["jobId"] for page in pages for job in page["jobSummaryList"] if job["jobName"] == name]
        return next((id for id in found if ":" not in id), None)

    def entries(self, job_id: str, size: int) -> list[EntryState]:
        """State of every entry of a job.

        Raises:
            CloudFailed: Batch cannot be asked, or has forgotten the job.
        """
        ids = [job_id] if size == 1 else [f"{job_id}:{index}" for index in range(size)]
        found: dict[str, Any] = {}
        for start in range(0, size, _AT_ONCE):
            with _explained(f"job {job_id}"):
                answer = self._batch.describe_jobs(jobs=ids[start : start + _AT_ONCE])
            found.update({job["jobId"]: job for job in answer["jobs"]})
        lost = [id for id in ids if id not in found]
        if lost:
            # A job that waits for another has no children yet.
            return self._not_spread(job_id, size)
        return [_state(found[id]) for id in ids]

    def _not_spread(self, job_id: str, size: int) -> list[EntryState]:
        with _explained(f"job {job_id}"):
            jobs = self._batch.describe_jobs(jobs=[job_id])["jobs"]
        if not jobs:
            raise CloudFailed(
                f"job {job_id} is not known to AWS Batch: it ended more than a week ago, or this is another account or region; "
                "if it is gone, delete the note of it in .gensync/cloud"
            )
        return [_state(jobs[0])] * size

    def read_log(self, stream: str, token: str | None) -> tuple[list[str], str | None]:
        """Lines of a log stream since `token`, and the token to go on with.

        Raises:
            CloudFailed: CloudWatch cannot be asked.
        """
        lines: list[str] = []
        while True:
            with _explained(f"log stream {stream}"):
                try:
                    answer = self._logs.get_log_events(
                        logGroupName=self.log_group,
                        logStreamName=stream,
                        startFromHead=True,
                        **({"nextToken": token} if token else {}),
                    )
                except self._logs.exceptions.ResourceNotFoundException:
                    return lines, token  # a worker that has not written yet
            lines += [event["message"] for event in answer["events"]]
            if answer["nextForwardToken"] == token or not answer["events"]:
                return lines, answer["nextForwardToken"]
            token = answer["nextForwardToken"]

    def terminate(self, job_id: str, reason: str) -> None:
        """End a job and all its entries; one that has ended is no error.

        Raises:
            CloudFailed: Batch refused.
        """
        with _explained(f"job {job_id}"):
            self._batch.terminate_job(jobId=job_id, reason=reason)


def ended(states: Sequence[EntryState]) -> bool:
    """Whether nothing of a job will run any more."""
    return all(state.status in DONE for state in states)


def _state(job: dict[str, Any]) -> EntryState:
    attempts = job.get("attempts") or []
    container = job.get("container") or {}
    last = attempts[-1].get("container", {}) if attempts else {}
    streams = [attempt.get("container", {}).get("logStreamName") for attempt in attempts] + [container.get("logStreamName")]
    reasons = [last.get("reason"), container.get("reason"), job.get("statusReason")]
    return EntryState(
        status=job["status"],
        exit_code=container.get("exitCode", last.get("exitCode")),
        reason="; ".join(dict.fromkeys(reason for reason in reasons if reason)),
        streams=tuple(dict.fromkeys(stream for stream in streams if stream)),
        seconds=_seconds(job, attempts),
    )


def _seconds(job: dict[str, Any], attempts: list[dict[str, Any]]) -> float:
    spans = [(attempt.get("startedAt"), attempt.get("stoppedAt")) for attempt in attempts]
    spans = spans or [(job.get("startedAt"), job.get("stoppedAt"))]
    return sum((stopped - started) / 1000 for started, stopped in spans if started and stopped)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn boto3's errors into ours: what AWS said, and nothing of the request, which is signed."""
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        raise CloudFailed(f"{what}: {said.get('Code', 'error')}: {said.get('Message') or 'no reason given'}") from None
    except NoCredentialsError:
        raise CloudFailed(f"{what}: no credentials for AWS; boto3 looks in AWS_PROFILE, ~/.aws and elsewhere") from None
    except BotoCoreError as error:
        raise CloudFailed(f"{what}: {type(error).__name__}: {error}") from None
