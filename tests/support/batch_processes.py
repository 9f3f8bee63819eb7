"""moto's AWS Batch, spoken to over HTTP, with processes in the place of containers.

moto keeps queues, definitions, jobs and logs, but needs Docker to run a job, and knows no retry strategy. Here a job's
command runs on this machine as AWS documents it: array index, attempts with `evaluateOnExit`, the attempt's deadline,
dependencies (also entry by entry), one log stream an attempt.
"""

import contextlib
import fnmatch
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from unittest import mock

import boto3
from moto.batch.models import Job
from moto.batch.responses import BatchResponse
from moto.batch.utils import JobStatus
from moto.server import ThreadedMotoServer

HOST_LOST = "Host EC2 (instance i-0123456789abcdef0) terminated."
TIMED_OUT = "Job attempt duration exceeded timeout"
_POLL_S = 0.05


class BatchProcesses:
    """Runs what is submitted to the moto server at `url`.

    Attributes:
        lines: what each attempt wrote: (job id, attempt) -> lines.
        exits: (job id, attempt, exit code), in the order in which they ended.
        submissions: the requests by which jobs were submitted.
        command: what jobs run in the place of what they were told to.
    """

    def __init__(self, url: str, log_group: str, slots: int) -> None:
        self.url, self.log_group = url, log_group
        self.lines: dict[tuple[str, int], list[str]] = {}
        self.exits: list[tuple[str, int, int]] = []
        self.submissions: list[dict[str, Any]] = []
        self.strategies: dict[str, dict[str, Any]] = {}
        self.reasons: dict[str, str] = {}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._slots = threading.Semaphore(slots)
        self._hold = threading.Event()
        self._hold.set()
        self.closing = False
        self.command: list[str] | None = None

    def hold(self) -> None:
        """Start no further job until `release`."""
        self._hold.clear()

    def release(self) -> None:
        self._hold.set()

    def running(self) -> dict[str, int]:
        """Ids of the jobs that run now, and their processes."""
        return {job_id: process.pid for job_id, process in self._running.items()}

    def reclaim(self, job_id: str, grace_s: float | None = 30.0) -> None:
        """What a spot machine does that goes away: SIGTERM, SIGKILL later; None: SIGKILL at once."""
        process = self._running[job_id]
        self.reasons[job_id] = HOST_LOST
        if grace_s is None:
            process.kill()
            return
        process.terminate()
        threading.Timer(grace_s, process.kill).start()

    def all_lines(self) -> list[str]:
        return [line for lines in list(self.lines.values()) for line in lines]

    def close(self) -> None:
        self.closing = True
        self.release()
        for process in list(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def run(self, job: Any) -> None:
        """The life of one job; called in its thread."""
        if not self._wait_for_dependencies(job):
            job.job_stopped_reason = "Dependent Job failed"
            job._mark_stopped(success=False)
            return
        job.status = JobStatus.RUNNABLE
        self._hold.wait()
        with self._slots:
            parent = job.job_id.partition(":")[0]
            for attempt in itertools.count(1):
                exit_code, reason = self._attempt(job, attempt)
                self.exits.append((job.job_id, attempt, exit_code))
                strategy = self.strategies.get(parent, {})
                if exit_code == 0 or job.stop or self.closing or reason == TIMED_OUT or attempt >= strategy.get("attempts", 1):
                    break
                if decide(strategy, exit_code, reason, "") == "EXIT":
                    break
            job.exit_code = exit_code
            job.job_stopped_reason = reason
            job._mark_stopped(success=exit_code == 0)

    def _attempt(self, job: Any, attempt: int) -> tuple[int, str]:
        job.job_started_at = datetime.now()
        job.log_stream_name = f"{job.job_definition.name}/default/{uuid.uuid4().hex}"
        job._log_backend.ensure_log_group(self.log_group)
        job._log_backend.ensure_log_stream(self.log_group, job.log_stream_name)
        job._start_attempt()
        command = self.command or job.container_overrides["command"]
        command = [sys.executable if part == "python" else part for part in command]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "AWS_BATCH_JOB_ID": job.job_id, "AWS_BATCH_JOB_ATTEMPT": str(attempt)}
        if "index" in job.array_properties:
            env["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.array_properties["index"])
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._running[job.job_id] = process
        job.status = JobStatus.RUNNING
        lines = self.lines.setdefault((job.job_id, attempt), [])
        reader = threading.Thread(target=self._read, args=(process, job, lines))
        reader.start()
        limit = time.monotonic() + (job._get_attempt_duration() or 1e9)
        while process.poll() is None:
            if time.monotonic() > limit:
                self.reasons[job.job_id] = TIMED_OUT
            if time.monotonic() > limit or job.stop:
                process.kill()
            time.sleep(_POLL_S)
        reader.join()
        del self._running[job.job_id]
        exit_code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        job.job_stopped_at = datetime.now()
        job._stop_attempt()
        job.latest_attempt["container"]["exitCode"] = exit_code
        reason = self.reasons.pop(job.job_id, "Essential container in task exited")
        job.latest_attempt["statusReason"] = reason
        return exit_code, reason

    def _read(self, process: "subprocess.Popen[str]", job: Any, lines: list[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            event = {"timestamp": int(time.time() * 1000), "message": line.rstrip("\n") or " "}
            job._log_backend.put_log_events(self.log_group, job.log_stream_name, [event])

    def _wait_for_dependencies(self, job: Any) -> bool:
        for dependency in job.depends_on or []:
            job_id = dependency["jobId"]
            if dependency.get("type") == "N_TO_N":
                job_id = f"{job_id}:{job.array_properties['index']}"
            above = job.all_jobs[job_id]
            while (state := _final(above)) is None:
                if self.closing:
                    return False
                time.sleep(_POLL_S)
            if state == JobStatus.FAILED:
                return False
        return True


def decide(strategy: dict[str, Any], exit_code: int, status_reason: str, reason: str) -> str:
    """What AWS Batch does after a failed attempt: the first rule of which every condition fits, else another attempt."""
    for rule in strategy.get("evaluateOnExit", []):
        asked = {"onExitCode": str(exit_code), "onStatusReason": status_reason, "onReason": reason}
        if all(fnmatch.fnmatch(asked[name], pattern) for name, pattern in rule.items() if name != "action"):
            return rule["action"].upper()
    return "RETRY"


def _final(job: Any) -> str | None:
    jobs = job._child_jobs or [job]
    if not all(one.status in (JobStatus.SUCCEEDED, JobStatus.FAILED) for one in jobs):
        return None
    return JobStatus.FAILED if any(one.status == JobStatus.FAILED for one in jobs) else JobStatus.SUCCEEDED


@contextlib.contextmanager
def batch_processes(name: str = "gensync", slots: int = 3) -> Iterator[BatchProcesses]:
    """A Batch with queues and definitions `NAME-cpu` and `NAME-gpu` while open."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    runner = BatchProcesses(f"http://{host}:{port}", f"/gensync/{name}", slots)
    describe, submitjob = Job.describe, BatchResponse.submitjob

    def run(job: Any) -> None:
        runner.run(job)

    def described(job: Any) -> dict[str, Any]:
        answer = describe(job)
        if job._child_jobs and (state := _final(job)):
            answer["status"] = state
        answer["container"] = {"logStreamName": job.log_stream_name} if job.log_stream_name else {}
        if job.exit_code is not None:
            answer["container"]["exitCode"] = job.exit_code
        if not answer["attempts"]:
            answer.pop("startedAt", None)
        return answer

    def submitted(response: Any) -> str:
        answer = submitjob(response)
        body = json.loads(response.body)
        job_id = json.loads(answer)["jobId"]
        runner.strategies[job_id] = body.get("retryStrategy", {})
        runner.submissions.append(body)
        return answer

    with (
        mock.patch.object(Job, "run", run),
        mock.patch.object(Job, "describe", described),
        mock.patch.object(BatchResponse, "submitjob", submitted),
    ):
        try:
            _furnish(runner.url, name)
            yield runner
        finally:
            runner.close()
            server.stop()


def _furnish(url: str, name: str) -> None:
    """What `infra/gensync.yaml` would have made; moto keeps what earlier servers of this process were told."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=10).close()
    access = {"endpoint_url": url, "region_name": "us-east-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
    role = boto3.client("iam", **access).create_role(RoleName=f"{name}-{uuid.uuid4().hex[:6]}", AssumeRolePolicyDocument="{}")
    batch = boto3.client("batch", **access)
    made = batch.create_compute_environment(
        computeEnvironmentName=name, type="UNMANAGED", state="ENABLED", serviceRole=role["Role"]["Arn"]
    )
    for kind in ("cpu", "gpu"):
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        batch.create_job_queue(jobQueueName=f"{name}-{kind}", state="ENABLED", priority=1, computeEnvironmentOrder=order)
        batch.register_job_definition(
            jobDefinitionName=f"{name}-{kind}",
            type="container",
            containerProperties={"image": "worker", "vcpus": 1, "memory": 512, "command": []},
        )
