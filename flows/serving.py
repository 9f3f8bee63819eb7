"""`gensync serve`: a Prefect server, and beside it the process that serves a project's deployments."""

import fcntl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.deployments import ServeSettings, deployments_of
from flows.inbox import open_desk
from flows.prefect_server import DEFAULT_PORT, home_of, prefect_server
from gensync_core.errors import GenSyncError, UsageError
from gensync_core.paths import Project
from tasks.inbox import release_interrupted
from tasks.limits import free_all_slots
from tasks.process import run_command, stop_all_on_signal

# Runs get SIGTERM and save their state; a trainer needs up to 20 s for that.
_GRACE_S = 40.0


def serve_project(
    settings: ServeSettings, database_url: str | None, tell: Callable[[str], None], *, port: int = DEFAULT_PORT
) -> None:
    """Serve a project until a signal comes; whatever was started is ended then.

    Args:
        settings: what is to be served.
        database_url: PostgreSQL database for a server of our own.
        tell: gets lines for the user.
        port: the first one that is tried for a server of our own.

    Raises:
        UsageError: the project is served already, or an argument cannot be used.
        GenSyncError: the server does not answer, or the process that serves the deployments ended.
    """
    project = Project(settings.root)
    open_desk(settings.root, settings.inbox, settings.patience).inbox.files()
    try:
        deployments_of(settings)
    except ValueError as error:
        crons = f"{settings.scan_cron!r} and {settings.retrain_cron!r}"
        raise UsageError(f"one of the schedules {crons} is not in cron's form, such as '*/5 * * * *'") from error
    with _only_one(project), prefect_server(project, database_url, port) as server:
        env = {"PREFECT_API_URL": server.api_url}
        if server.ours:
            free_all_slots(server.api_url)
            tell(f"Prefect server   {server.ui_url}  (database: {server.database}; log: {home_of(project) / 'server.log'})")
        else:
            tell(f"Prefect server   {server.ui_url}")
        tell(f"inbox            {settings.inbox}  ({settings.scan_cron})")
        tell(f"cohort training  {settings.retrain_cron or 'never'}")
        tell("end with Ctrl-C")
        with _attempts_given_back(settings), stop_all_on_signal():
            outcome = run_command(
                [sys.executable, "-m", "flows.deployments", settings.dumps()],
                # Not the project's folder: the copy of the code that lies there is for stages only.
                cwd=home_of(project),
                env=env,
                on_line=tell,
                log_file=home_of(project) / "serve.log",
                grace_s=_GRACE_S,
            )
    if not outcome.interrupted:
        last = outcome.tail[-1] if outcome.tail else "no output"
        raise GenSyncError(f"the process that serves the deployments ended with exit code {outcome.exit_code}: {last}")


@contextmanager
def _attempts_given_back(settings: ServeSettings) -> Iterator[None]:
    """What we end, ends without a fault of its own, however abruptly Prefect's runner ends it."""
    try:
        yield
    finally:
        release_interrupted(open_desk(settings.root, settings.inbox, settings.patience))


@contextmanager
def _only_one(project: Project) -> Iterator[None]:
    home_of(project).mkdir(parents=True, exist_ok=True)
    with (home_of(project) / "serve.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{project.root} is served already, by another process") from None
        yield
