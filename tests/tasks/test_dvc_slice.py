"""An adapted speaker's stages in a slice of the project: the same `dvc.lock` as without; failures and kills lose nothing."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gensync_core.artefacts import sha256_of
from gensync_core.errors import GenSyncError, UsageError
from gensync_core.paths import Project
from gensync_core.speakers import Registry, Speaker
from tasks import dvc_slice
from tasks.dvc_project import Node, add_file, plan, read_lock, reproduce
from tasks.process import CommandFailed, command_env, run_command
from tasks.registration import add_speaker, remove_speaker

Enlist = Callable[..., None]
Executed = Callable[[Project], list[str]]
Footage = Callable[..., Path]
CHAIN = ["ingest@radio", "coarse@radio", "evaluate@radio"]


def planned(project: Project, name: str = "radio") -> list[Node]:
    return plan(project, [f"evaluate@{name}"], scope=name)


def run(project: Project, name: str = "radio") -> list[str]:
    return [reproduce(project, node) for node in planned(project, name)]


def addresses(nodes: list[Node]) -> list[str]:
    return [node.address for node in nodes]


def slices(project: Project) -> list[str]:
    folder = project.root / ".gensync" / "slices"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def dvc(project: Project, *arguments: str) -> tuple[str, ...]:
    outcome = run_command(["dvc", *arguments], cwd=project.root)
    assert outcome.exit_code == 0, outcome.tail
    return outcome.tail


def together(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[[Path], Project]) -> Project:
    """A cohort of one, trained, and nobody adapted."""
    project = make_toy(tmp_path_factory.mktemp("pattern") / "toy")
    raw = project.raw("alice", ".mp4")
    raw.parent.mkdir(parents=True)
    raw.write_text("fine")
    alice = Speaker(id="alice", raw="data/raw/alice.mp4", sha256=sha256_of(raw), group="cohort")
    Registry({"alice": alice}).save(project.speakers_file)
    dvc(project, "repro", "evaluate@alice")
    return project


@pytest.fixture
def trained(toy: Project, pattern: Project) -> Project:
    """A copy of it."""
    but = shutil.ignore_patterns("config", ".site", "tmp")
    shutil.copytree(pattern.root, toy.root, dirs_exist_ok=True, ignore=but)
    return toy


def test_the_lock_is_what_plain_dvc_writes(trained: Project, footage: Footage, executed: Executed, tmp_path: Path) -> None:
    add_speaker(trained, footage("radio"), "radio", "adapted", consent="letter of May 3")
    assert slices(trained) == []
    plain = tmp_path / "plain"
    shutil.copytree(trained.root, plain)
    before = (trained.root / "dvc.lock").read_bytes()

    nodes = planned(trained)
    assert addresses(nodes) == CHAIN
    assert [node.sliced for node in nodes] == ["radio"] * 3
    assert [reproduce(trained, node) for node in nodes] == ["executed"] * 3
    lock = (trained.root / "dvc.lock").read_bytes()
    assert lock.startswith(before), "nobody else's text is touched"
    for node in nodes:
        dvc(Project(plain), "repro", "-s", node.address)
    assert lock == (plain / "dvc.lock").read_bytes()
    assert (trained.root / "reports/radio/report.html").read_text() == trained.shared.read_text()

    num_executed = len(executed(trained))
    assert "up to date" in dvc(trained, "status")[-1]
    dvc(trained, "repro")
    assert len(executed(trained)) == num_executed
    assert (trained.root / "dvc.lock").read_bytes() == lock
    assert planned(trained) == []
    assert slices(trained) == [], "nothing to do, nothing left"


def test_a_change_runs_what_it_concerns(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    enlist("tv", "another", group="adapted")
    assert run(trained) == run(trained, "tv") == ["executed"] * 3
    before = read_lock(trained)
    trained.raw("radio", ".mp4").write_text("other footage")
    enlist("radio", "other footage", group="adapted")
    assert planned(trained, "tv") == []
    assert run(trained) == ["executed"] * 3
    after = read_lock(trained)
    assert {address for address in after if after[address] != before[address]} == set(CHAIN)
    assert list(after) == list(before), "entries stay in their places"

    trained.params_file.write_text("gain: 2\nweight: 1\n")
    assert run(trained, "tv") == ["executed", "unchanged", "unchanged"], "its clip came out the same"
    assert read_lock(trained)["ingest@tv"]["params"]["params.yaml"] == {"gain": 2}
    assert read_lock(trained)["ingest@radio"]["params"]["params.yaml"] == {"gain": 1}


def test_a_failure_keeps_what_is_done_and_names_the_project(trained: Project, enlist: Enlist) -> None:
    enlist("radio", "crash coarse", group="adapted")
    nodes = planned(trained)
    assert reproduce(trained, nodes[0]) == "executed"
    assert "ingest@radio" in read_lock(trained)
    lines: list[str] = []
    with pytest.raises(CommandFailed, match="boom") as caught:
        reproduce(trained, nodes[1], on_line=lines.append)
    assert "slices" not in f"{caught.value} {lines}"
    (trained.root / "mended").touch()
    assert addresses(planned(trained)) == CHAIN[1:]
    assert run(trained) == ["executed"] * 2


def test_another_form_of_the_lock_will_do(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    path = trained.root / "dvc.lock"
    before = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(before, default_flow_style=True))
    assert run(trained) == ["executed"] * 3
    after = yaml.safe_load(path.read_text())
    assert {address: entry for address, entry in after["stages"].items() if "radio" not in address} == before["stages"]
    assert plan(trained, ["evaluate"]) == []


def test_what_a_killed_run_had_done_is_taken_over(trained: Project, enlist: Enlist, executed: Executed) -> None:
    enlist("radio", group="adapted")
    planned(trained)
    # As if we had been killed after DVC was done and before the merge.
    slice_root = dvc_slice.folder_of(trained, "radio")
    dvc(Project(slice_root), "repro", "-s", "ingest@radio")
    assert "ingest@radio" not in read_lock(trained)
    assert plan(trained, ["evaluate@alice"]) == []
    assert "ingest@radio" in read_lock(trained)
    assert slices(trained) == []
    assert addresses(planned(trained)) == CHAIN[1:]
    run(trained)
    assert executed(trained)[-3:] == CHAIN


@pytest.mark.fault("kill -9 of the flow")
def test_killed_at_any_moment_the_next_run_is_right(trained: Project, enlist: Enlist, executed: Executed) -> None:
    enlist("radio", group="adapted")
    code = (
        "import sys; from pathlib import Path; from gensync_core.paths import Project; from tasks.dvc_project import *\n"
        "project = Project(Path(sys.argv[1]))\n"
        "for node in plan(project, ['evaluate@radio'], scope='radio'): reproduce(project, node)\n"
    )
    for seconds in (0.7, 1.8, 2.9, 4.0):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(trained.root)], cwd=Path(__file__).parents[2], env=command_env()
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(1)  # the guard ends what the killed one had started
    run(trained)
    assert planned(trained) == []
    assert plan(trained, ["evaluate"]) == []
    lock = read_lock(trained)
    dvc(trained, "repro")
    assert read_lock(trained) == lock
    assert set(CHAIN) <= set(executed(trained))


def test_an_unfinished_slice_is_thrown_away(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    planned(trained)
    folder = dvc_slice.folder_of(trained, "radio")
    (folder / "speakers.yaml").unlink()
    (folder / "dvc.lock").write_text("half")
    assert plan(trained, ["evaluate@alice"]) == []
    assert slices(trained) == []


@pytest.mark.fault("parallel runs")
def test_two_speakers_at_once_lose_nothing(trained: Project, enlist: Enlist) -> None:
    names = ("radio", "tv", "web")
    for name in names:
        enlist(name, f"text of {name}", group="adapted")
    nodes = {name: planned(trained, name) for name in names}
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for node in nodes[name]:
                reproduce(trained, node)
        except BaseException as error:
            failures.append(error)

    together(*(lambda name=name: work(name) for name in names))
    assert failures == []
    assert {f"{stage}@{name}" for stage in ("ingest", "coarse", "evaluate") for name in names} <= set(read_lock(trained))
    assert plan(trained, ["evaluate"]) == []


@pytest.mark.fault("same stage twice at once")
def test_the_same_stage_twice_at_once_runs_once(trained: Project, enlist: Enlist, executed: Executed) -> None:
    enlist("radio", group="adapted")
    node = planned(trained)[0]
    hows: list[str] = []
    together(*(lambda: hows.append(reproduce(trained, node)) for _ in range(2)))
    assert sorted(hows) == ["executed", "unchanged"]
    assert executed(trained).count("ingest@radio") == 1
    assert slices(trained) == ["radio", "radio.lock"]


def test_a_run_of_everybody_waits_for_the_same_stage_in_a_slice(trained: Project, enlist: Enlist, executed: Executed) -> None:
    enlist("radio", group="adapted")
    (everybodys,) = (node for node in plan(trained, ["ingest"]) if node.address == CHAIN[0])
    assert everybodys.sliced is None
    node = planned(trained)[0]
    hows: list[str] = []
    together(*(lambda node=node: hows.append(reproduce(trained, node)) for node in (everybodys, node)))
    assert sorted(hows) in (["executed", "run-cache"], ["executed", "unchanged"])
    assert executed(trained).count("ingest@radio") == 1


def test_a_damaged_slice_stops_nobody(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    planned(trained)
    (dvc_slice.folder_of(trained, "radio") / "dvc.lock").write_bytes(bytes(100))
    assert plan(trained, ["evaluate@alice"]) == []
    assert slices(trained) == []
    assert addresses(planned(trained)) == CHAIN


def test_a_plan_waits_for_who_is_at_work(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    nodes = planned(trained)
    (trained.root / "toy.py").write_text("import time; time.sleep(2)\n" + (trained.root / "toy.py").read_text())
    at_work = threading.Thread(target=lambda: reproduce(trained, nodes[0]))
    at_work.start()
    while "radio.ingest.lock" not in slices(trained):
        time.sleep(0.05)
    dvc_slice.take_over(trained)
    assert "radio" in slices(trained), "a slice in use is left alone"
    assert addresses(planned(trained)) == CHAIN[1:]
    at_work.join()


def test_a_slice_that_is_gone_is_made_again(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    nodes = planned(trained)
    reproduce(trained, nodes[0])
    dvc_slice.take_over(trained)
    assert slices(trained) == []
    assert [reproduce(trained, node) for node in nodes] == ["unchanged", "executed", "executed"]


def test_of_someone_removed_nothing_is_merged(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    nodes = planned(trained)
    dvc(Project(dvc_slice.folder_of(trained, "radio")), "repro", "-s", "ingest@radio")
    remove_speaker(trained, "radio")
    assert slices(trained) == []
    assert "ingest@radio" not in read_lock(trained)
    with pytest.raises(UsageError, match="no speaker 'radio'"):
        reproduce(trained, nodes[1])


def test_of_someone_changed_nothing_is_merged(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    planned(trained)
    dvc(Project(dvc_slice.folder_of(trained, "radio")), "repro", "-s", "ingest@radio")
    enlist("radio", "other", group="adapted")
    assert addresses(planned(trained)) == CHAIN
    assert "ingest@radio" not in read_lock(trained)


def test_who_is_in_the_cohort_or_nobody_has_no_slice(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    assert [dvc_slice.sliced_speaker(trained, scope) for scope in ("alice", "nobody", None, "radio")] == [
        None,
        None,
        None,
        "radio",
    ]
    config = trained.root / ".dvc" / "config"
    config.write_text(config.read_text().replace("no_scm = true", "no_scm = false"))
    assert dvc_slice.sliced_speaker(trained, "radio") is None, "DVC writes a .gitignore beside each out there"


def test_dvc_is_set_up_as_in_the_project(trained: Project, enlist: Enlist, tmp_path: Path) -> None:
    config = trained.root / ".dvc" / "config"
    config.write_text(config.read_text() + "    remote = store\n['remote \"store\"']\n    url = ../../store\n")
    (trained.root / ".dvc" / "config.local").write_text("[core]\n    hardlink_lock = true\n    checksum_jobs = 2\n")
    enlist("radio", group="adapted")
    assert run(trained) == ["executed"] * 3
    folder = dvc_slice.folder_of(trained, "radio")
    store = run_command(["dvc", "config", "remote.store.url"], cwd=folder).tail[-1]
    assert (folder / ".dvc" / store).resolve() == tmp_path / "store"
    assert dvc(Project(folder), "config", "core.checksum_jobs") == ("2",)
    assert dvc(Project(folder), "cache", "dir") == (str(trained.root / ".dvc" / "cache"),)
    assert (folder / ".dvc").stat().st_mode & 0o077 == 0, "a remote's password may be in there"


def test_a_file_that_dvc_refuses_leaves_no_slice(trained: Project) -> None:
    with pytest.raises(GenSyncError):
        add_file(trained, trained.raw("nobody", ".mp4"))
    assert slices(trained) == []


def test_links_lead_to_the_projects_own_folders(trained: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    planned(trained)
    inside = Project(dvc_slice.folder_of(trained, "radio"))
    for name in ("params.yaml", "dvc.yaml", "toy.py", "data/speakers", "models", "reports", ".gensync"):
        assert os.path.realpath(inside.root / name) == str(trained.root / name)
    assert inside.registry().ids() == ["radio"]
    assert inside.scratch.parent.resolve() == trained.scratch.parent
    assert inside.raw("radio", ".mp4").samefile(trained.raw("radio", ".mp4"))
    assert [path.name for path in (inside.root / "data" / "raw").iterdir()] == ["radio.mp4"], "nobody else's footage"
