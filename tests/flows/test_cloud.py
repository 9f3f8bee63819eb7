"""The cloud on loopback: a real S3 server, moto's Batch with processes as containers, workers in folders of their own."""

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from batch_processes import BatchProcesses, batch_processes
from flaky_proxy import FAULTS, flaky_proxy
from seaweed import ACCESS_KEY, Seaweed, seaweed

from gensync_core.paths import Project
from tasks.cloud_batch import BatchQueues
from tasks.cloud_collect import collect
from tasks.cloud_submission import CloudSettings, load_all, prepare, submit
from tasks.cloud_worker import EVENT
from tasks.dvc_project import plan
from tasks.dvc_remote import object_key
from tasks.object_store import ObjectStore
from tasks.process import CommandFailed, run_command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
SECRET = "canary-7f3a9c51-never-to-be-seen"
STORE = "s3://gensync-store/team"
SETTINGS = CloudSettings(store=STORE, poll_s=0.3)
Footage = Callable[..., Path]

# A stage told to wait does so until the file `go` lies in the folder `GATE`; one told to fail does so twice.
WAITING = """
import os as _os
if f"wait {stage}" in text:
    pathlib.Path(_os.environ["GATE"], "reached").touch()
    while not pathlib.Path(_os.environ["GATE"], "go").exists():
        time.sleep(0.05)
if f"fail {stage}" in text:
    attempts = pathlib.Path(_os.environ["GATE"], f"{stage}-{name}")
    attempts.write_text(attempts.read_text() + "x" if attempts.exists() else "x")
    if len(attempts.read_text()) <= 2:
        raise RuntimeError("fails twice")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed(tmp_path_factory.mktemp("seaweed"), SECRET) as running:
        yield running


@pytest.fixture
def cloud(server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchProcesses]:
    """Batch and an empty bucket; what boto3 and DVC need to find them is in the environment, as in the cloud."""
    with batch_processes() as batch:
        gate = tmp_path / "gate"
        gate.mkdir()
        for name, value in {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": batch.url,
            "AWS_ENDPOINT_URL_S3": server.url,
            "GENSYNC_WORK": str(tmp_path / "workers"),
            "GATE": str(gate),
        }.items():
            monkeypatch.setenv(name, value)
        s3 = boto3.client("s3")
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
            s3.create_bucket(Bucket="gensync-store")
        yield batch
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="gensync-store"):
            for found in page.get("Contents", []):
                s3.delete_object(Bucket="gensync-store", Key=found["Key"])


@pytest.fixture
def project(toy: Project) -> Project:
    """The toy with a metric that DVC leaves to git, and stages that can be made to wait or to fail."""
    code = (toy.root / "toy.py").read_text()
    (toy.root / "toy.py").write_text(code.replace("print('@progress", WAITING + "print('@progress"))
    pipeline = yaml.safe_load((toy.root / "dvc.yaml").read_text())
    report = pipeline["stages"]["evaluate"]["do"]
    report["cmd"] += " && cp reports/${key}/report.html reports/${key}/metrics.json"
    report["metrics"] = [{"reports/${key}/metrics.json": {"cache": False}}]
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    return toy


@pytest.fixture
def videos(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    def make(**texts: str) -> dict[str, Path]:
        made = {name: tmp_path / f"{name}.mp4" for name in texts}
        for name, path in made.items():
            path.write_text(texts[name])
        return made

    return make


def events(batch: BatchProcesses, state: str) -> list[str]:
    """Stages that workers said this of, sorted."""
    told = [yaml.safe_load(line.removeprefix(EVENT)) for line in batch.all_lines() if line.startswith(EVENT)]
    return sorted(event["address"] for event in told if event["state"] == state)


def lock_of(project: Project) -> dict[str, Any]:
    return yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]


def run_locally(project: Project, folder: Path) -> dict[str, Any]:
    """The same project run by plain DVC on this machine, from nothing."""
    shutil.copytree(project.root, folder, ignore=shutil.ignore_patterns("dvc.lock", "cache", "tmp", "config.local", ".site"))
    for leftover in ("models", "reports", "data/speakers"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    assert run_command(["dvc", "repro"], cwd=folder).exit_code == 0
    return lock_of(Project(folder))


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.fault("second workspace")
def test_three_speakers_are_onboarded_by_workers_and_equal_a_local_run(
    cloud: BatchProcesses, project: Project, videos: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    from flows.cloud import cloud_onboard, cloud_repro, cost_lines

    result = cloud_onboard(project.root, videos(anna="anna", bob="bob", carl="carl"), SETTINGS, train=True)
    result.raise_failures()
    assert not (project.root / "runs.log").exists(), "the orchestrator executes nothing itself"
    speakers = ("anna", "bob", "carl")
    stages = sorted([f"{kind}@{name}" for kind in ("ingest", "coarse", "evaluate") for name in speakers] + ["joint"])
    assert events(cloud, "executed") == stages == sorted(result.merged)
    assert [body.get("arrayProperties") for body in cloud.submissions] == [{"size": 3}, None, {"size": 3}]
    assert not list((tmp_path / "workers").iterdir()), "workers leave nothing"
    for name in speakers:
        for file in (project.root / "reports" / name / "report.html", project.root / "reports" / name / "metrics.json"):
            assert file.read_text() == project.shared.read_text()
    assert set(result.cost) == {*speakers, "shared"}
    assert all(vcpu_s > 0 and gpu_s == 0 for vcpu_s, gpu_s in result.cost.values())
    assert len(cost_lines(result.cost)) == 4
    assert cloud_repro(project.root, [("joint", None), ("evaluate", None)], SETTINGS).merged == []
    assert len(cloud.submissions) == 3, "nothing is submitted twice"

    assert run_locally(project, tmp_path / "local") == lock_of(project)
    assert run_command(["dvc", "status", "--json"], cwd=project.root).tail[-1] == "{}"
    assert not files_with(SECRET, project.root)
    assert not [line for line in cloud.all_lines() if SECRET in line]
    assert not [found for found in stored() if SECRET.encode() in found]

    (note,) = load_all(project)
    for how in ("lock", "run-cache"):
        other = second_folder(project, tmp_path / how)
        merge = collect(other, note, how)
        assert sorted(merge.merged) == stages
        assert not merge.refused
        assert lock_of(other) == lock_of(project)
        assert not (other.root / "runs.log").exists()
        assert (other.root / "reports" / "anna" / "metrics.json").exists() == (how == "run-cache")
        assert cloud_repro(other.root, [("evaluate", None)], SETTINGS).merged == [], "what lies in the cloud is up to date"
    assert len(cloud.submissions) == 3


def second_folder(project: Project, folder: Path) -> Project:
    """Code and settings of the project, nothing that was made."""
    made = ("dvc.lock", "cache", "tmp", "models", "reports", "speakers", ".site")
    shutil.copytree(project.root, folder, ignore=shutil.ignore_patterns(*made))
    config = folder / ".dvc" / "config"
    config.write_text(config.read_text().replace(str(project.root), str(folder)))
    return Project(folder)


@pytest.mark.fault("spot machine taken in mid-chain")
@pytest.mark.parametrize("grace_s", [None, 30.0], ids=["killed at once", "told before"])
def test_a_worker_that_loses_its_machine_goes_on_at_the_stage_it_was_in(
    grace_s: float | None, cloud: BatchProcesses, project: Project, videos: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    from flows.cloud import cloud_onboard

    def lose_the_machine() -> None:
        wait_for((tmp_path / "gate" / "reached").exists)
        (job_id,) = cloud.running()
        started = time.monotonic()
        cloud.reclaim(job_id, grace_s)
        wait_for(lambda: bool(cloud.exits))
        took.append(time.monotonic() - started)
        (tmp_path / "gate" / "go").touch()

    took: list[float] = []
    spot = threading.Thread(target=lose_the_machine)
    spot.start()
    result = cloud_onboard(project.root, videos(anna="wait coarse"), SETTINGS)
    spot.join()
    result.raise_failures()
    assert [exit_code for _, _, exit_code in cloud.exits] == [137 if grace_s is None else 143, 0]
    assert took[0] < 20
    assert events(cloud, "started") == ["coarse@anna", "coarse@anna", "ingest@anna", "ingest@anna"]
    assert events(cloud, "executed") == ["coarse@anna", "ingest@anna"]
    assert events(cloud, "run-cache") == ["ingest@anna"], "what was finished is not done again"
    assert len(cloud.submissions) == 1


@pytest.mark.fault("part of an array fails")
def test_what_failed_is_submitted_again_alone_and_a_rejection_is_final(
    cloud: BatchProcesses, project: Project, videos: Callable[..., dict[str, Path]]
) -> None:
    from flows.cloud import cloud_onboard

    made = videos(anna="fine", bob="reject ingest", carl="fail coarse")
    result = cloud_onboard(project.root, made, SETTINGS)
    assert result.rejected == ["bob"]
    assert sorted(project.registry().speakers) == ["anna", "carl"]
    assert not list((project.root / "data" / "raw").glob("bob*"))
    with pytest.raises(CommandFailed, match="bob: footage is not fit for use") as caught:
        result.raise_failures()
    assert caught.value.exit_code == 3
    assert sorted(result.merged) == ["coarse@anna", "coarse@carl", "ingest@anna", "ingest@carl"]
    assert [body.get("arrayProperties") for body in cloud.submissions] == [{"size": 3}, None], "carl's coarse alone"
    assert events(cloud, "executed") == ["coarse@anna", "coarse@carl", "ingest@anna", "ingest@carl"]
    assert sorted(exit_code for _, _, exit_code in cloud.exits) == [0, 0, 1, 3], "Batch tries neither again"
    assert {scope for scope in result.cost} == {"anna", "bob", "carl"}


@pytest.mark.fault("orchestrator restarted", "cache object missing on push")
def test_a_new_orchestrator_attaches_to_what_runs_and_a_lost_object_is_not_published(
    cloud: BatchProcesses,
    project: Project,
    enlist: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from flows import cli

    def gensync(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gensync", "--project", str(project.root), "cloud", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    enlist("anna", "anna")
    enlist("bob", "bob")
    nodes = plan(project, ["coarse"])
    submission = prepare(project, nodes, SETTINGS, targets=[("coarse", None)])
    submit(project, submission, BatchQueues("gensync"))
    submission.jobs[0].job_id = None
    submission.save(project)  # as if we had died before the id was noted
    assert gensync("status") == 0
    wait_for(lambda: len(cloud.exits) == 2)
    lost = json.loads(ObjectStore(STORE).get_bytes(submission.jobs[0].entries[1].part))["stages"]["coarse@bob"]
    ObjectStore(STORE).delete("dvc/" + object_key(lost["outs"][0]["md5"]))
    capsys.readouterr()
    assert gensync("attach") == 4
    said = capsys.readouterr()
    # The toy's stages copy, so both of bob's files were that object.
    assert "ingest@bob: not taken over: data/speakers/cohort/bob/clip is missing from the remote" in said.err
    assert "coarse@bob: not taken over" in said.err
    assert "anna: " in said.out
    assert sorted(lock_of(project)) == ["coarse@anna", "ingest@anna"]
    assert len(cloud.submissions) == 1
    assert gensync("attach") == 0, "nothing is open any more"


@pytest.mark.timeout(1800)
def test_a_store_that_stumbles_is_survived(
    cloud: BatchProcesses,
    server: Seaweed,
    project: Project,
    videos: Callable[..., dict[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.cloud import cloud_onboard

    with flaky_proxy(server.port, share=0.15, stall_s=40.0, most_stalls=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        result = cloud_onboard(project.root, videos(anna="anna"), SETTINGS)
        result.raise_failures()
        happened = proxy.happened
    assert {fault for fault in happened} == {*FAULTS, "forwarded"}, happened
    assert sorted(lock_of(project)) == events(cloud, "executed")
    assert {exit_code for _, _, exit_code in cloud.exits} == {0}


def stored() -> list[bytes]:
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="gensync-store")
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return [s3.get_object(Bucket="gensync-store", Key=key)["Body"].read() + key.encode() for key in keys]
