"""Inboxes that are no folder."""

import json
import time

import boto3
import moto
import pytest
from made_up_inbox import HASTY, files_in, scan

from gensync_core.errors import UsageError
from gensync_core.paths import Project
from tasks.inbox import Desk
from tasks.inbox_places import open_inbox


@pytest.mark.parametrize("address", ["ftp://host/inbox", "s3://", "S3://bucket/x"])
def test_an_address_that_is_no_inbox_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        open_inbox(address)


def test_an_inbox_in_s3(toy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    onboarded: list[str] = []
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="footage")
        keys = {
            "in/anna.mp4": "A", "in/again.mp4": "A", "in/bob.mp4": "reject", "in/bob.mp4.yaml": "id: robert",
            "in/old/carl.mp4": "C", "elsewhere.mp4": "E",
        }  # fmt: skip
        for key, text in keys.items():
            client.put_object(Bucket="footage", Key=key, Body=text.encode())
        desk = Desk(project=toy, inbox=open_inbox("s3://footage/in"), settings=HASTY)
        for _ in range(3):
            scan(desk, onboarded, time.time() + 5)
        assert onboarded == ["again"], "keys are listed by name"
        left = sorted(found["Key"] for found in client.list_objects_v2(Bucket="footage")["Contents"])
        assert left == [
            "elsewhere.mp4",
            "in/old/carl.mp4",
            "in/onboarded/again.mp4", "in/onboarded/again.mp4.json", "in/onboarded/anna.mp4", "in/onboarded/anna.mp4.json",
            "in/rejected/bob.mp4", "in/rejected/bob.mp4.json", "in/rejected/bob.mp4.yaml",
        ]  # fmt: skip
        note = json.loads(client.get_object(Bucket="footage", Key="in/rejected/bob.mp4.json")["Body"].read())
        assert (note["speaker"], note["reason"]) == ("robert", "no face in the footage")
        assert files_in(desk.ledger.folder / "fetched") == []
