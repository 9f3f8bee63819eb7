"""An object store in memory, for tests that need no server."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from gensync_core.artefacts import atomic_path, sha256_of
from tasks.object_store import ObjectMissing, ObjectStore, StoredObject


class MemoryStore(ObjectStore):
    """Objects by key; `puts` counts what was stored."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects: dict[str, bytes] = objects if objects is not None else {}
        self.puts = 0

    def url(self, key: str = "") -> str:
        return f"s3://memory/{key}"

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield StoredObject(key=key, size=len(self.objects[key]), etag="", modified=datetime.now(UTC))

    def exists(self, key: str) -> bool:
        return key in self.objects

    def get_bytes(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(f"{self.url(key)}: there is no such object")
        return self.objects[key]

    def get(self, key: str, path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
        with atomic_path(path) as temporary:
            temporary.write_bytes(self.get_bytes(key))
        return sha256_of(path)

    def put_bytes(self, content: bytes, key: str) -> None:
        self.puts += 1
        self.objects[key] = content

    def put(self, path: Path, key: str) -> None:
        self.put_bytes(path.read_bytes(), key)

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)
