"""Finds a standing Prefect server, or starts one for a project that ends with us."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from prefect.settings import PREFECT_API_URL

from gensync_core.errors import GenSyncError, UsageError
from gensync_core.paths import Project
from tasks.process import command_env, guarded

DEFAULT_PORT = 4200

_START_S = 240.0
_POLL_S = 0.5
_ANSWER_S = 5.0
_GRACE_S = 10.0
_POSTGRESQL = ("postgresql", "postgres", "postgresql+asyncpg")


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefectServer:
    """A server that answers.

    Attributes:
        api_url: of its API.
        ours: we started it, and it ends with us.
        database: where it keeps what happened, without a password; empty for a server that was there.
    """

    api_url: str
    ours: bool
    database: str = ""

    @property
    def ui_url(self) -> str:
        """What to open in a browser."""
        return self.api_url.removesuffix("/api")


def home_of(project: Project) -> Path:
    """Folder of the project's own server: database and log."""
    return project.root / ".gensync" / "prefect"


def connection_url(database_url: str) -> str:
    """The form in which Prefect wants the address of a PostgreSQL database.

    Raises:
        UsageError: it is the address of something else.
    """
    scheme, separator, rest = database_url.partition("://")
    if scheme not in _POSTGRESQL or not separator or not urlsplit(database_url).path.strip("/"):
        raise UsageError("the database's address has to be of the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return f"postgresql+asyncpg://{rest}"


def without_password(database_url: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(database_url)
    port = f":{parts.port}" if parts.port else ""
    return f"postgresql://{parts.hostname or 'localhost'}{port}{parts.path}"


@contextmanager
def prefect_server(project: Project, database_url: str | None, port: int = DEFAULT_PORT) -> Iterator[PrefectServer]:
    """The server that `PREFECT_API_URL` or Prefect's profile names, else one of the project's own.

    Args:
        project: keeps the server's SQLite file where there is no `database_url`.
        database_url: PostgreSQL database for a server of our own.
        port: the first one that is tried.

    Raises:
        UsageError: a server is named and a database, too, or the address of the database is none.
        GenSyncError: the server does not answer, or does not start.
    """
    named = PREFECT_API_URL.value()
    if named:
        if database_url:
            raise UsageError(f"PREFECT_API_URL names a server ({named}) that has its database; leave one of the two out")
        if not _answers(named):
            raise GenSyncError(f"no Prefect server answers at {named} (PREFECT_API_URL): start it, or unset the variable")
        yield PrefectServer(api_url=named, ours=False)
        return
    home = home_of(project)
    home.mkdir(parents=True, exist_ok=True)
    database = connection_url(database_url) if database_url else f"sqlite+aiosqlite:///{home / 'prefect.db'}"
    process, api_url = _start(home, database, port)
    try:
        yield PrefectServer(
            api_url=api_url, ours=True, database=without_password(database_url) if database_url else str(home / "prefect.db")
        )
    finally:
        _end(process)


def _start(home: Path, database: str, port: int) -> tuple["subprocess.Popen[bytes]", str]:
    """Start a server and wait until it answers; on another port where somebody takes the first one meanwhile."""
    for wanted in (port, 0, 0):
        chosen = _free_port(wanted)
        api_url = f"http://127.0.0.1:{chosen}/api"
        process = _spawn(home, database, chosen, api_url)
        try:
            if _is_up(home, api_url, process):
                return process, api_url
        except BaseException:
            _end(process)
            raise
        _end(process)
    raise GenSyncError("whatever port was free for the Prefect server, somebody else took it: name one by --port")


def _spawn(home: Path, database: str, port: int, api_url: str) -> "subprocess.Popen[bytes]":
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_API_URL": api_url,
        "PREFECT_UI_API_URL": api_url,
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        return subprocess.Popen(
            guarded(command, _GRACE_S),
            cwd=home,
            env=command_env(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(2 * _GRACE_S)


def _is_up(home: Path, api_url: str, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until the server answers; False where it is somebody else's that answers."""
    deadline = time.monotonic() + _START_S
    log_file = home / "server.log"
    while not _answers(api_url):
        if process.poll() is not None:
            lines = [line for line in log_file.read_text(errors="replace").splitlines() if line.strip()]
            raise GenSyncError(
                f"the Prefect server ended at once: {lines[-1] if lines else 'no output'} (all of it: {log_file})"
            )
        if time.monotonic() > deadline:
            raise GenSyncError(f"the Prefect server did not answer within {_START_S:.0f} s; see {log_file}")
        time.sleep(_POLL_S)
    return _home_behind(api_url) == str(home)


def _answers(api_url: str) -> bool:
    return _read(api_url, "health") is not None


def _home_behind(api_url: str) -> str | None:
    """The folder of the server that answers: every project's own server has one of its own."""
    settings = _read(api_url, "admin/settings")
    return json.loads(settings).get("home") if settings else None


def _read(api_url: str, what: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"{api_url.rstrip('/')}/{what}", timeout=_ANSWER_S) as answer:
            return answer.read() if answer.status == 200 else None
    except (urllib.error.URLError, OSError, ValueError):
        return None


def _free_port(wanted: int) -> int:
    """`wanted` if nobody has it, else one that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise GenSyncError("no port is free for the Prefect server")
