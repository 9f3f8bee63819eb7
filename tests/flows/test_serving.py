"""`gensync serve` as people run it: a schedule fires, kills leave nothing behind, PostgreSQL; and which server is taken."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_cluster import PASSWORD, postgres_url
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import prefect_server, serving
from flows.deployments import ServeSettings
from gensync_core.errors import GenSyncError, UsageError
from gensync_core.paths import Project
from tasks.inbox_ledger import Ledger, State, Submission

EVERY_MINUTE = "* * * * *"


class Served:
    """`gensync serve` in a process of its own."""

    def __init__(self, project: Project, **env: str) -> None:
        self.project = project
        self.said = project.root.parent / f"said-{time.monotonic_ns()}.txt"
        options = ["--every", EVERY_MINUTE, "--settle", "0", "--backoff", "0", "--at-once", "2"]
        with self.said.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "--project", str(project.root), "serve", *options],
                cwd=Path(prefect_server.__file__).parents[1],
                env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | env,
                stdout=file,
                stderr=file,
                # Whoever runs the tests in the background has SIGINT ignored, which is passed on.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )

    def wait_for(self, what: Callable[[], bool], seconds: float = 420.0) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < end, f"{self.told()}\n{Ledger(self.project).latest()}"
            time.sleep(0.5)

    def told(self) -> str:
        logs = sorted((self.project.root / ".gensync" / "prefect").glob("*.log"))
        return "\n".join(path.read_text(errors="replace") for path in [self.said, *logs])

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(120)
        end = time.monotonic() + 60
        while left := processes_of(self.project):
            assert time.monotonic() < end, left
            time.sleep(0.5)
        return code


def processes_of(project: Project) -> list[str]:
    """Command lines of processes that work in the project's folder or on it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(process.name) != os.getpid() and str(project.root) in f"{command} {(process / 'cwd').readlink()}":
                found.append(command)
        except (OSError, ValueError):
            continue
    return found


def rows(project: Project) -> dict[str, Submission]:
    return {row.name: row for row in Ledger(project).latest()}


def state(project: Project, name: str) -> State | None:
    row = rows(project).get(name)
    return row.state if row else None


@pytest.fixture
def served(toy: Project) -> Iterator[Callable[..., Served]]:
    (toy.root / "inbox").mkdir()
    started: list[Served] = []

    def start(**env: str) -> Served:
        started.append(Served(toy, **env))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGTERM)


@pytest.mark.fault("schedule fires", "kill -9 of the flow")
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_schedule_fires_and_kills_lose_nothing(toy: Project, served: Callable[..., Served]) -> None:
    stages, graph = toy.root / "toy.py", toy.root / "dvc.yaml"
    stages.write_text(stages.read_text().replace("time.sleep(60)", "time.sleep(900)"))
    graph.write_text(graph.read_text().replace("deadline_s: 60", "deadline_s: 1000"))
    (toy.root / "inbox" / "anna.mp4").write_text("A")
    (toy.root / "inbox" / "sleepy.mp4").write_text("sleep ingest")

    def sleeps(times: int) -> bool:
        log = toy.root / "runs.log"
        return log.exists() and log.read_text().count("ingest@sleepy\n") == times

    first = served()
    first.wait_for(lambda: state(toy, "anna.mp4") is State.ONBOARDED and sleeps(1))
    first.end(signal.SIGTERM)
    row = rows(toy)["sleepy.mp4"]
    assert (row.state, row.tries) == (State.WAITING, 0), "an interruption is no failure"

    second = served()
    second.wait_for(lambda: sleeps(2))
    second.end(signal.SIGKILL)
    # The run is told by its guard that its server is gone, and may or may not come to note it.
    assert state(toy, "sleepy.mp4") in (State.RUNNING, State.WAITING)

    stages.write_text(stages.read_text().replace("time.sleep(900)", "time.sleep(0)"))
    third = served()
    third.wait_for(lambda: state(toy, "sleepy.mp4") is State.ONBOARDED)
    row = rows(toy)["sleepy.mp4"]
    assert row.attempt == 3
    assert row.tries <= 1
    assert third.end(signal.SIGINT) != 0
    assert sorted(path.name for path in (toy.root / "inbox").iterdir()) == ["onboarded"]
    assert toy.registry().ids() == ["anna", "sleepy"]


@pytest.mark.fault("schedule fires")
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_schedule_fires_on_postgresql(toy: Project, served: Callable[..., Served]) -> None:
    import asyncpg

    async def ask(url: str) -> list[tuple[str, str]]:
        connection = await asyncpg.connect(url)
        try:
            found = await connection.fetch("select name, state_name from flow_run where name like 'anna%'")
            return [(row["name"], row["state_name"]) for row in found]
        finally:
            await connection.close()

    (toy.root / "inbox" / "anna.mp4").write_text("A")
    with postgres_url() as url:
        one = served(GENSYNC_DATABASE_URL=url)
        one.wait_for(lambda: state(toy, "anna.mp4") is State.ONBOARDED)
        one.wait_for(lambda: asyncio.run(ask(url)) == [("anna, attempt 1", "Onboarded")])
        assert PASSWORD not in " ".join(processes_of(toy))
        one.end(signal.SIGTERM)
        assert PASSWORD not in one.told()
        assert "postgresql://127.0.0.1" in one.told()
    assert not (toy.root / ".gensync" / "prefect" / "prefect.db").exists()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_the_usual_address_of_a_database_is_enough(scheme: str) -> None:
    url = f"{scheme}://anna:secret@db.example:5433/prefect?ssl=require"
    assert prefect_server.connection_url(url) == "postgresql+asyncpg://anna:secret@db.example:5433/prefect?ssl=require"
    shown = prefect_server.without_password(url)
    assert shown == "postgresql://db.example:5433/prefect"


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "postgresql://a:secret@b", "/tmp/secret.db", ""])
def test_another_database_is_refused_without_naming_its_password(url: str) -> None:
    with pytest.raises(UsageError, match="postgresql://USER") as caught:
        prefect_server.connection_url(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_named_has_to_answer(toy: Project) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        with pytest.raises(GenSyncError, match=r"no Prefect server answers at http://127\.0\.0\.1:9/api"):
            with prefect_server.prefect_server(toy, None):
                pass
        with pytest.raises(UsageError, match="leave one of the two out"):
            with prefect_server.prefect_server(toy, "postgresql://a:b@c/d"):
                pass


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_is_there_is_used_and_left_alone(toy: Project) -> None:
    with prefect_server.prefect_server(toy, None) as server:
        assert (server.api_url, server.ours) == (PREFECT_API_URL.value(), False)


def test_a_database_that_is_not_there_is_said_at_once(toy: Project) -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        with pytest.raises(GenSyncError, match=r"ended at once: .*server\.log") as caught:
            with prefect_server.prefect_server(toy, "postgresql://anna:secret@127.0.0.1:9/prefect"):
                pass
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("prefect_server")
def test_a_server_of_somebody_else_is_not_taken_for_ours(toy: Project) -> None:
    api_url = str(PREFECT_API_URL.value())
    home = prefect_server._home_behind(api_url)
    assert home
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert prefect_server._is_up(Path(home), api_url, process)
        assert not prefect_server._is_up(toy.root, api_url, process)
        process.kill()


def test_one_process_serves_a_project(toy: Project) -> None:
    (toy.root / "inbox").mkdir()
    settings = ServeSettings(root=toy.root, inbox=str(toy.root / "inbox"))
    with serving._only_one(toy), pytest.raises(UsageError, match="is served already"):
        serving.serve_project(settings, None, print)


@pytest.mark.parametrize("changes", [{"scan_cron": "now and then"}, {"retrain_cron": "61 * * * *"}, {"inbox": "ftp://a/b"}])
def test_what_cannot_be_served_is_said_before_anything_starts(changes: dict[str, str], toy: Project) -> None:
    settings = ServeSettings(**{"root": toy.root, "inbox": str(toy.root)} | changes)
    with pytest.raises(UsageError):
        serving.serve_project(settings, None, print)
