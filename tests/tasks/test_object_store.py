"""The S3 door against moto's S3: whole files, their digests, errors of ours, nothing of the credentials."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import boto3
import moto
import pytest

from gensync_core.errors import UsageError
from tasks import object_store
from tasks.object_store import ObjectMissing, ObjectStore, StoreFailed

CANARY = "canary-that-must-not-be-seen"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with moto.mock_aws():
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield ObjectStore("s3://bucket/some/prefix/")


def test_files_go_there_and_back_with_their_digest(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"\x00\xff" * 9_000_000)  # more than one part
    store.put(source, "a b/ü.bin")
    seen: list[int] = []
    assert store.get("a b/ü.bin", target, seen.append) == hashlib.sha256(source.read_bytes()).hexdigest()
    assert target.read_bytes() == source.read_bytes()
    assert sum(seen) == store.head("a b/ü.bin").size == 18_000_000
    assert "-" in store.head("a b/ü.bin").etag, "of a multipart upload the ETag is no digest"


def test_keys_are_relative_to_the_prefix(store: ObjectStore) -> None:
    boto3.client("s3").put_object(Bucket="bucket", Key="some/prefixed", Body=b"not ours")
    for key in ("b", "a", "deep/c"):
        store.put_bytes(key.encode(), key)
    assert [found.key for found in store.list()] == ["a", "b", "deep/c"]
    assert [found.key for found in store.list(deep=False)] == ["a", "b"]
    assert [found.key for found in store.list("deep/")] == ["deep/c"]
    store.move("a", "deep/a")
    store.delete("b")
    store.delete("b")
    assert [found.key for found in store.list()] == ["deep/a", "deep/c"]
    assert store.get_bytes("deep/a") == b"a"
    assert (store.exists("a"), store.exists("deep/a")) == (False, True)
    assert store.url("x") == "s3://bucket/some/prefix/x"


def test_what_is_missing_is_said_and_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("as it was")
    for ask in (
        lambda: store.get("x", target),
        lambda: store.get_bytes("x"),
        lambda: store.head("x"),
        lambda: store.move("x", "y"),
    ):
        with pytest.raises(ObjectMissing, match="s3://bucket/some/prefix/x: there is no such object"):
            ask()
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_text() == "as it was"
    with pytest.raises(StoreFailed, match="NoSuchBucket"):
        list(ObjectStore("s3://another-bucket").list())


@pytest.mark.parametrize("url", ["https://bucket/x", "s3://", "s3:///x", "s3://Bucket/x", "bucket"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="use s3://bucket/prefix"):
        ObjectStore(url)


class Moody(BaseHTTPRequestHandler):
    """Refuses with 503, or breaks the connection, as often as `moods` says; then answers."""

    moods: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        mood = self.moods.pop(0) if self.moods else "fine"
        if mood == "reset":
            self.connection.close()
            return
        self.send_response(503 if mood == "busy" else 200)
        body = b"" if mood == "busy" else b"content"
        self.send_header("Content-Length", str(len(body) + (100 if mood == "cut" else 0)))
        self.send_header("ETag", '"mark"')
        self.send_header("Last-Modified", "Sun, 03 May 2026 10:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://localhost:{server.server_port}")
    monkeypatch.setattr(object_store, "_ATTEMPTS", 4)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    yield ObjectStore("s3://bucket")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("moods", [["busy", "busy"], ["reset"], ["cut"], ["busy", "reset", "busy"]])
def test_a_store_with_moods_is_asked_again(moods: list[str], moody: ObjectStore) -> None:
    Moody.moods = list(moods)
    assert moody.get_bytes("key") == b"content"
    assert Moody.moods == []


def test_a_store_that_stays_away_is_said_without_secrets(
    moody: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Moody.moods = ["busy"] * 50
    with pytest.raises(StoreFailed, match="s3://bucket/key: 503") as caught:
        moody.get("key", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []
    assert CANARY not in f"{caught.value} {caught.value.__cause__} {caplog.text}"
