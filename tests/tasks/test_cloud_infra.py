"""The template of the cloud: valid, in step with the code, and no wider than needed."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.cloud_batch import RETRY_STRATEGY

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "infra" / "gensync.yaml"


class _Loader(yaml.SafeLoader):
    """Reads `!Sub x` as `{"Sub": x}`."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    return {suffix: loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else loader.construct_object(node)}


_Loader.add_multi_constructor("!", _function)
RESOURCES: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)["Resources"]


def statements() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, resource in RESOURCES.items():
        properties = resource["Properties"]
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            documents.append(properties["PolicyDocument"])
        found += [(name, statement) for document in documents for statement in document["Statement"]]
    return found


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_cloudformation_would_take_it() -> None:
    linter = shutil.which("cfn-lint", path=str(Path(sys.executable).parent)) or shutil.which("cfn-lint")
    if linter is None:
        pytest.skip("cfn-lint is not installed")
    done = subprocess.run([linter, str(TEMPLATE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nobody_may_do_more_than_is_needed() -> None:
    assert len(statements()) > 10
    # These know no resources.
    everywhere = {"ecr:GetAuthorizationToken", "batch:DescribeJobs", "batch:ListJobs"}
    for name, statement in statements():
        actions = set(listed(statement["Action"]))
        assert not [action for action in actions if "*" in action], name
        if "*" in listed(statement["Resource"]):
            assert actions <= everywhere, name


def test_a_worker_cannot_change_code_or_manifests_or_delete_results() -> None:
    writes = [
        s for name, s in statements() if name == "WorkerRole" and {"s3:PutObject", "s3:DeleteObject"} & set(listed(s["Action"]))
    ]
    places = {resource["Sub"].rpartition("${Name}/")[2] for statement in writes for resource in listed(statement["Resource"])}
    assert places == {"dvc/*", "parts/*", "scratch/*"}
    deletes = [s for s in writes if "s3:DeleteObject" in listed(s["Action"])]
    assert [s["Resource"]["Sub"].rpartition("${Name}/")[2] for s in deletes] == ["scratch/*"]


def test_the_bucket_is_private_and_encrypted() -> None:
    bucket = RESOURCES["Store"]["Properties"]
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert RESOURCES["Store"]["DeletionPolicy"] == "Retain"


@pytest.mark.parametrize("name", ["CpuJob", "GpuJob"])
def test_job_definitions_are_those_that_the_code_expects(name: str) -> None:
    job = RESOURCES[name]["Properties"]
    kind = name.removesuffix("Job").lower()
    assert job["JobDefinitionName"] == {"Sub": f"${{Name}}-{kind}"}
    assert RESOURCES[f"{kind.capitalize()}Queue"]["Properties"]["JobQueueName"] == {"Sub": f"${{Name}}-{kind}"}
    rules = [
        {key[0].lower() + key[1:]: value for key, value in rule.items()} for rule in job["RetryStrategy"]["EvaluateOnExit"]
    ]
    assert {"attempts": job["RetryStrategy"]["Attempts"], "evaluateOnExit": rules} == RETRY_STRATEGY
    container = job["ContainerProperties"]
    assert not container["Privileged"]
    assert container["User"] == "gensync"
    assert container["LinuxParameters"]["InitProcessEnabled"], "SIGTERM must reach the worker"
    assert RESOURCES["Logs"]["Properties"]["LogGroupName"] == {"Sub": "/gensync/${Name}"}


def test_the_image_carries_no_data_and_no_secrets() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*", "what is not named stays out"
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {name for line in dockerfile.splitlines() if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert copied == {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert "USER gensync" in dockerfile
