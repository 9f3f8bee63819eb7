"""AWS Batch's door against moto over HTTP, with jobs that run as processes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from batch_processes import HOST_LOST, TIMED_OUT, BatchProcesses, batch_processes, decide

from tasks.cloud_batch import RETRY_STRATEGY, BatchQueues, CloudFailed, EntryState, JobRequest, ended

Code = Callable[[str], None]
JOB = JobRequest(
    name="gensync-1-0",
    gpu=False,
    manifest="s3://b/manifests/x.json",
    size=1,
    vcpus=2,
    memory_mib=2048,
    gpus=0,
    attempt_s=60,
    needs=(),
)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchProcesses]:
    with batch_processes() as running:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": running.url,
        }.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def code(runner: BatchProcesses) -> Code:
    """Says what jobs run in the place of the worker."""

    def choose(text: str) -> None:
        runner.command = ["python", "-c", text]

    return choose


def wait(batch: BatchQueues, job_id: str, size: int = 1, seconds: float = 30.0) -> list[EntryState]:
    limit = time.monotonic() + seconds
    while not ended(states := batch.entries(job_id, size)):
        assert time.monotonic() < limit, states
        time.sleep(0.1)
    return states


@pytest.mark.parametrize(
    ("exit_code", "status_reason", "reason", "action"),
    [
        (143, "Essential container in task exited", "", "RETRY"),
        (137, HOST_LOST, "", "RETRY"),
        (1, HOST_LOST, "", "RETRY"),
        (137, "Essential container in task exited", "OutOfMemoryError: Container killed due to memory usage", "EXIT"),
        (3, "Essential container in task exited", "", "EXIT"),
        (4, "Essential container in task exited", "", "EXIT"),
        (1, "Essential container in task exited", "", "EXIT"),
    ],
)
def test_only_what_a_spot_machine_does_is_tried_again(exit_code: int, status_reason: str, reason: str, action: str) -> None:
    assert decide(RETRY_STRATEGY, exit_code, status_reason, reason) == action
    assert decide({"evaluateOnExit": []}, exit_code, status_reason, reason) == "RETRY", "as AWS does where no rule fits"
    assert len(RETRY_STRATEGY["evaluateOnExit"]) <= 5, "AWS takes no more"


def test_an_array_runs_an_entry_for_each_index_and_its_logs_can_be_followed(runner: BatchProcesses, code: Code) -> None:
    code("import os, sys; i = os.environ['AWS_BATCH_JOB_ARRAY_INDEX']; print('entry', i); sys.exit(3 if i == '1' else 0)")
    batch = BatchQueues("gensync")
    job_id = batch.submit(replace(JOB, size=3))
    states = wait(batch, job_id, 3)
    assert [(state.status, state.exit_code) for state in states] == [("SUCCEEDED", 0), ("FAILED", 3), ("SUCCEEDED", 0)]
    assert all(0 < state.seconds < 20 for state in states)
    assert [batch.read_log(state.streams[-1], None)[0] for state in states] == [["entry 0"], ["entry 1"], ["entry 2"]]
    token = batch.read_log(states[0].streams[-1], None)[1]
    assert batch.read_log(states[0].streams[-1], token)[0] == [], "nothing is read twice"
    assert len(runner.exits) == 3, "a rejection is not tried again"


def test_what_is_asked_for_is_what_batch_gets(runner: BatchProcesses, code: Code) -> None:
    code("pass")
    batch = BatchQueues("gensync")
    first = batch.submit(replace(JOB, gpu=True, gpus=1, attempt_s=10))
    wait(batch, first)
    batch.submit(replace(JOB, name="gensync-1-1", size=2, needs=((first, False),)))
    asked = runner.submissions
    assert [body["jobQueue"] for body in asked] == ["gensync-gpu", "gensync-cpu"]
    assert asked[0]["containerOverrides"]["resourceRequirements"] == [
        {"type": "VCPU", "value": "2"},
        {"type": "MEMORY", "value": "2048"},
        {"type": "GPU", "value": "1"},
    ]
    assert asked[0]["timeout"] == {"attemptDurationSeconds": 60}, "AWS takes no less"
    assert "arrayProperties" not in asked[0], "an array has two entries or more"
    assert asked[1]["arrayProperties"] == {"size": 2}
    assert asked[1]["dependsOn"] == [{"jobId": first}]
    assert asked[0]["retryStrategy"] == RETRY_STRATEGY


def test_a_job_of_the_same_name_is_not_submitted_twice(runner: BatchProcesses, code: Code) -> None:
    code("pass")
    first = BatchQueues("gensync").submit(replace(JOB, size=2))
    assert BatchQueues("gensync").submit(replace(JOB, size=2)) == first
    assert len(runner.submissions) == 1


@pytest.mark.fault("spot machine taken in mid-chain")
def test_a_reclaimed_machine_means_another_attempt_and_both_are_paid(runner: BatchProcesses, code: Code) -> None:
    code("import os, time; n = os.environ['AWS_BATCH_JOB_ATTEMPT']; print('attempt', n); time.sleep(0 if n == '2' else 60)")
    batch = BatchQueues("gensync")
    job_id = batch.submit(JOB)
    while not runner.lines.get((job_id, 1)):
        time.sleep(0.05)
    runner.reclaim(job_id, grace_s=None)
    (state,) = wait(batch, job_id)
    assert state.status == "SUCCEEDED"
    assert [exit_code for _, _, exit_code in runner.exits] == [137, 0]
    assert len(state.streams) == 2


@pytest.mark.fault("deadline passed")
def test_a_deadline_ends_the_attempt_and_is_not_tried_again(runner: BatchProcesses, code: Code, monkeypatch) -> None:
    code("import time; time.sleep(60)")
    monkeypatch.setattr("moto.batch.models.Job._get_attempt_duration", lambda job: 1)
    batch = BatchQueues("gensync")
    (state,) = wait(batch, batch.submit(JOB))
    assert (state.status, state.exit_code) == ("FAILED", 137)
    assert TIMED_OUT in state.reason
    assert len(runner.exits) == 1


def test_entries_wait_for_those_of_the_same_index_only(runner: BatchProcesses, code: Code) -> None:
    code("import os, sys; sys.exit(3 if os.environ['AWS_BATCH_JOB_ARRAY_INDEX'] == '0' and 'FIRST' not in os.environ else 0)")
    batch = BatchQueues("gensync")
    first = batch.submit(replace(JOB, size=2))
    second = batch.submit(replace(JOB, name="gensync-1-1", size=2, needs=((first, True),)))
    states = wait(batch, second, 2)
    assert [state.status for state in states] == ["FAILED", "SUCCEEDED"]
    assert "Dependent Job failed" in states[0].reason
    assert states[0].exit_code is None


def test_a_job_can_be_ended(runner: BatchProcesses, code: Code) -> None:
    code("import time; time.sleep(60)")
    batch = BatchQueues("gensync")
    job_id = batch.submit(JOB)
    while not runner.running():
        time.sleep(0.05)
    batch.terminate(job_id, "enough")
    assert wait(batch, job_id)[0].status == "FAILED"


def test_what_aws_says_is_one_line_without_the_request(runner: BatchProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CloudFailed, match="queue nobody-cpu"):
        BatchQueues("nobody").submit(JOB)
    with pytest.raises(CloudFailed, match="not known to AWS Batch"):
        BatchQueues("gensync").entries("00000000-0000-0000-0000-000000000000", 1)
    assert BatchQueues("gensync").read_log("worker/default/none", None) == ([], None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(CloudFailed, match="no credentials for AWS"):
        BatchQueues("gensync").submit(JOB)
