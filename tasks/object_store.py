"""Whole files in an S3 bucket: listed, fetched with their digest, put, moved; one of the two doors to boto3.

Region, endpoint (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`) and credentials come from boto3's own chain; none of them is
taken as an argument, logged or written.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from gensync_core.artefacts import atomic_path, sha256_of
from gensync_core.errors import GenSyncError, UsageError

_ATTEMPTS = 8
_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_MISSING = ("404", "NoSuchKey", "NotFound")


class StoreFailed(GenSyncError):
    """The store did not do what it was asked, after all attempts; the message says which object and what the store said."""


class ObjectMissing(StoreFailed):
    """There is no such object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """What the store says about an object.

    Attributes:
        key: its name below the store's prefix.
        size: bytes.
        etag: the store's mark of this version; of a multipart upload no digest of the content.
        modified: when it was written.
    """

    key: str
    size: int
    etag: str
    modified: datetime


class ObjectStore:
    """Objects below `s3://bucket/prefix`; keys are relative to it. May be used from several threads.

    What is refused for a moment (503, timeouts, connections that break) is tried again with growing pauses.
    """

    def __init__(self, url: str) -> None:
        match = _URL.fullmatch(url)
        if match is None:
            raise UsageError(f"{url!r} is not the address of an S3 folder: use s3://bucket/prefix")
        self.bucket = match["bucket"]
        self.prefix = f"{match['prefix'].strip('/')}/" if (match["prefix"] or "").strip("/") else ""
        self._client = _client()

    def url(self, key: str = "") -> str:
        """The full address of an object."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[StoredObject]:
        """Objects whose key starts with `prefix`, by name.

        Args:
            prefix: start of the key.
            deep: False leaves out those that have a further `/` in their key.

        Raises:
            StoreFailed: the store cannot be listed.
        """
        where = {"Bucket": self.bucket, "Prefix": self.prefix + prefix} | ({} if deep else {"Delimiter": "/"})
        with _explained(self.url(prefix)):
            for page in self._client.get_paginator("list_objects_v2").paginate(**where):
                for found in page.get("Contents", []):
                    yield _stored(found["Key"].removeprefix(self.prefix), found, found["Size"])

    def head(self, key: str) -> StoredObject:
        """What the store says about one object.

        Raises:
            ObjectMissing: there is none.
            StoreFailed: the store cannot say.
        """
        with _explained(self.url(key)):
            found = self._client.head_object(Bucket=self.bucket, Key=self.prefix + key)
            return _stored(key, found, found["ContentLength"])

    def exists(self, key: str) -> bool:
        """Whether there is such an object.

        Raises:
            StoreFailed: the store cannot say.
        """
        try:
            self.head(key)
        except ObjectMissing:
            return False
        return True

    def get(self, key: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
        """Fetch an object into `path`, whole or not at all; returns the sha256 of what was fetched.

        Args:
            key: the object.
            path: replaced if it exists.
            on_bytes: called with the number of bytes that came in, from several threads.

        Raises:
            ObjectMissing: there is no such object.
            StoreFailed: it cannot be fetched, or another one took its place meanwhile.
        """
        with _explained(self.url(key)), atomic_path(path) as temporary:
            before = self.head(key)
            self._client.download_file(self.bucket, self.prefix + key, str(temporary), Callback=on_bytes)
            if temporary.stat().st_size != before.size or self.head(key).etag != before.etag:
                raise StoreFailed(f"{self.url(key)}: was replaced while it was fetched; try again")
            return sha256_of(temporary)

    def get_bytes(self, key: str) -> bytes:
        """A small object's content.

        Raises:
            ObjectMissing: there is no such object.
            StoreFailed: it cannot be fetched.
        """
        with _explained(self.url(key)):
            content = io.BytesIO()
            self._client.download_fileobj(self.bucket, self.prefix + key, content)
            return content.getvalue()

    def put(self, path: Path, key: str) -> None:
        """Store a file; it appears whole or not at all.

        Raises:
            StoreFailed: it cannot be stored.
        """
        with _explained(self.url(key)):
            self._client.upload_file(str(path), self.bucket, self.prefix + key)

    def put_bytes(self, content: bytes, key: str) -> None:
        """Store a small object.

        Raises:
            StoreFailed: it cannot be stored.
        """
        with _explained(self.url(key)):
            self._client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=content)

    def move(self, key: str, new_key: str) -> None:
        """Give an object another name; killed in between, both names are there.

        Raises:
            ObjectMissing: there is no such object.
            StoreFailed: it cannot be copied or deleted.
        """
        with _explained(self.url(key)):
            source = {"Bucket": self.bucket, "Key": self.prefix + key}
            self._client.copy(source, self.bucket, self.prefix + new_key)
        self.delete(key)

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error.

        Raises:
            StoreFailed: it cannot be deleted.
        """
        with _explained(self.url(key)):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)


def _client() -> Any:
    patient = Config(
        retries={"mode": "adaptive", "max_attempts": _ATTEMPTS},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
    )
    client = boto3.client("s3", config=patient)
    if (urlsplit(client.meta.endpoint_url).hostname or "").partition(".amazonaws.")[1]:
        return client
    # Other makers' servers answer under one host name and know no checksums in trailers.
    plain = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", config=patient.merge(plain))


def _stored(key: str, found: dict[str, Any], size: int) -> StoredObject:
    return StoredObject(key=key, size=size, etag=found["ETag"].strip('"'), modified=found["LastModified"])


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn boto3's errors into ours: what the store said, and nothing of the request, which is signed."""
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        if said.get("Code") in _MISSING:
            raise ObjectMissing(f"{what}: there is no such object") from None
        raise StoreFailed(f"{what}: {said.get('Code', 'error')}: {said.get('Message') or 'no reason given'}") from None
    except NoCredentialsError:
        raise StoreFailed(f"{what}: no credentials for S3; boto3 looks for them in AWS_PROFILE, ~/.aws and elsewhere") from None
    except (BotoCoreError, Boto3Error) as error:
        raise StoreFailed(f"{what}: {type(error).__name__}: {error}") from None
