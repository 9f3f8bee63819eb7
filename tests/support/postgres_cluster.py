"""A PostgreSQL cluster of its own for a test, on a free port of this machine; gone afterwards."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "swordfish"


def _user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("root, and no other user to run PostgreSQL as")


@contextmanager
def postgres_url() -> Iterator[str]:
    """Address of an empty database, with a password; skips where PostgreSQL is not installed."""
    programs = {name: shutil.which(name) for name in ("initdb", "postgres")}
    if None in programs.values():
        pytest.skip("no PostgreSQL on PATH")
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="gensync-postgres-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if user:
            shutil.chown(folder, user["user"], user["group"])
            shutil.chown(secret, user["user"], user["group"])
        data = str(folder / "data")
        options = ["--username=prefect", f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync"]
        made = subprocess.run(
            [str(programs["initdb"]), "-D", data, *options], cwd=folder, capture_output=True, text=True, check=False, **user
        )
        assert made.returncode == 0, made.stderr
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off",
        }  # fmt: skip
        command = [
            str(programs["postgres"]),
            "-D",
            data,
            *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **user)
        _wait_for(port, process, folder / "log")
        yield f"postgresql://prefect:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        if "ready to accept connections" in log.read_text(errors="replace"):
            return
        time.sleep(0.2)
    raise AssertionError(f"PostgreSQL on port {port} did not start: {log.read_text()}")
