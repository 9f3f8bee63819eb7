"""What DVC is asked: the plan of what has to run, and running it."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from gensync_core.errors import ArtefactBroken, UsageError
from gensync_core.paths import Project
from tasks import dvc_project
from tasks.dvc_project import Node, Policy, add_file, current_hashes, plan, reproduce, stage_inputs, thread_env
from tasks.process import CommandFailed

Enlist = Callable[..., None]
Executed = Callable[[Project], list[str]]


def run_all(project: Project, targets: list[str]) -> dict[str, str]:
    return {node.address: reproduce(project, node) for node in plan(project, targets)}


def addresses(nodes: list[Node]) -> list[str]:
    return [node.address for node in nodes]


def test_the_plan_follows_the_graph(toy: Project, enlist: Enlist) -> None:
    enlist("alice")
    enlist("bob")
    enlist("radio", group="adapted")
    nodes = plan(toy, ["joint", "evaluate@bob"])
    order = addresses(nodes)
    assert sorted(order) == ["coarse@alice", "coarse@bob", "evaluate@bob", "ingest@alice", "ingest@bob", "joint"]
    for node in nodes:
        assert all(order.index(dep) < order.index(node.address) for dep in node.deps)
    joint = next(node for node in nodes if node.address == "joint")
    # The folder of the cohort is a dependency on every stage that writes into it.
    assert set(joint.deps) == {"ingest@alice", "ingest@bob", "coarse@alice", "coarse@bob"}
    assert joint.policy == Policy()
    assert next(node for node in nodes if node.kind == "ingest").policy == Policy(retry_delay_s=0, deadline_s=60)
    assert addresses(plan(toy, ["evaluate@radio"], scope="radio")) == ["ingest@radio", "coarse@radio", "evaluate@radio"]
    assert len(plan(toy, ["evaluate@radio"])) == 8, "the cohort is not trained yet"
    assert sorted(addresses(plan(toy, ["ingest"]))) == ["ingest@alice", "ingest@bob", "ingest@radio"]


@pytest.mark.fault("speaker added, edited, removed")
def test_only_what_is_dirty_is_planned(toy: Project, enlist: Enlist, executed: Executed) -> None:
    enlist("alice")
    targets = ["evaluate@alice"]
    nodes = plan(toy, targets)
    lines: list[str] = []
    assert [reproduce(toy, node, on_line=lines.append) for node in nodes] == ["executed"] * 4
    assert any(line.startswith("@progress ") for line in lines)
    assert "Running stage" in (toy.root / ".gensync" / "logs" / "ingest-alice.log").read_text()
    assert plan(toy, targets) == []
    assert reproduce(toy, nodes[0]) == "unchanged"

    (toy.root / "params.yaml").write_text("gain: 1\nweight: 2\n")
    assert addresses(plan(toy, targets)) == ["joint", "evaluate@alice"]
    (toy.root / "params.yaml").write_text("gain: 1\nweight: 1\n")
    assert plan(toy, targets) == []

    enlist("radio", group="adapted")
    assert addresses(plan(toy, ["evaluate@radio"])) == ["ingest@radio", "coarse@radio", "evaluate@radio"]
    assert plan(toy, targets) == [], "a newcomer disturbs nobody"

    toy.shared.unlink()
    (toy.root / "dvc.lock").unlink()
    assert reproduce(toy, nodes[0]) == "run-cache"
    assert len(executed(toy)) == 4, "what was run before is taken from DVC's cache"


def test_an_empty_cohort_disturbs_no_other_target(toy: Project, enlist: Enlist) -> None:
    enlist("radio", group="adapted")
    assert addresses(plan(toy, ["coarse@radio"])) == ["ingest@radio", "coarse@radio"]


@pytest.mark.parametrize(("text", "code"), [("reject ingest", 3), ("broken ingest", 4), ("crash ingest", 1)])
def test_the_exit_code_of_a_stage_comes_through_dvc(text: str, code: int, toy: Project, enlist: Enlist) -> None:
    enlist("alice", text)
    with pytest.raises(CommandFailed, match="ingest@alice: ") as caught:
        run_all(toy, ["ingest@alice"])
    assert caught.value.exit_code == code
    assert not (toy.cohort_folder / "alice" / "clip").exists()
    if code == 1:
        assert "full output in" in str(caught.value)


def test_a_plan_waits_for_whoever_is_at_work_on_the_files(
    toy: Project, enlist: Enlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlist("alice", "A")
    table = toy.root / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir(parents=True, exist_ok=True)
    out = toy.cohort_folder / "alice" / "clip"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"]) as other:
        table.write_text(json.dumps({"write": {str(out): {"pid": other.pid, "cmd": "dvc repro"}}}))
        monkeypatch.setattr(dvc_project, "_PATIENCE_S", 0.5)
        with pytest.raises(dvc_project.Busy, match="another run is at work on its files"):
            plan(toy, ["ingest@alice"])
        monkeypatch.setattr(dvc_project, "_PATIENCE_S", 30.0)
        threading.Timer(1.0, lambda: (other.kill(), other.wait())).start()
        assert [node.address for node in plan(toy, ["ingest@alice"])] == ["ingest@alice"]


def test_an_unknown_target_is_a_usage_error(toy: Project) -> None:
    with pytest.raises(UsageError, match="no stage 'paint'"):
        plan(toy, ["paint"])


def test_a_project_that_dvc_cannot_read_is_a_broken_artefact(toy: Project) -> None:
    (toy.root / "dvc.yaml").write_text("stages: [")
    with pytest.raises(ArtefactBroken, match="DVC cannot read"):
        plan(toy, ["ingest"])


def test_an_unknown_policy_is_a_broken_artefact(toy: Project, enlist: Enlist) -> None:
    text = (toy.root / "dvc.yaml").read_text()
    (toy.root / "dvc.yaml").write_text(text.replace("deadline_s", "deadline"))
    enlist("alice")
    with pytest.raises(ArtefactBroken, match="deadline"):
        plan(toy, ["ingest"])


def test_threads_are_bounded_by_the_machine() -> None:
    assert set(thread_env(1).values()) == {"1"}
    assert int(thread_env(10_000)["OMP_NUM_THREADS"]) < 10_000


def test_a_stage_is_not_executed_where_that_is_not_wanted(toy: Project, enlist: Enlist, executed: Executed) -> None:
    enlist("alice")
    (node,) = plan(toy, ["ingest@alice"])
    with pytest.raises(CommandFailed, match="ingest@alice"):
        reproduce(toy, node, execute=False)
    assert executed(toy) == []
    reproduce(toy, node)
    (toy.root / "dvc.lock").unlink()
    (toy.cohort_folder / "alice" / "clip").unlink()
    assert reproduce(toy, node, execute=False) == "run-cache", "what ran before needs no execution"


def test_it_is_known_where_inputs_come_from(toy: Project, enlist: Enlist) -> None:
    enlist("alice")
    enlist("bob")
    add_file(toy, toy.raw("bob", ".mp4"))
    inputs = stage_inputs(toy)
    assert list(inputs).index("ingest@alice") < list(inputs).index("joint")
    assert (inputs["ingest@alice"].files, inputs["ingest@alice"].tracked) == (("data/raw/alice.mp4", "toy.py"), ())
    assert (inputs["ingest@bob"].files, inputs["ingest@bob"].tracked) == (("toy.py",), ("data/raw/bob.mp4.dvc",))
    assert inputs["joint"].stages == ("coarse@alice", "coarse@bob", "ingest@alice", "ingest@bob")
    assert inputs["joint"].files == ("toy.py",)
    hashes = current_hashes(toy, ["ingest@alice", "joint"])
    assert hashes["ingest@alice"].deps["data/raw/alice.mp4"] == hashlib.md5(b"fine").hexdigest()
    assert hashes["joint"].deps["data/speakers/cohort"] is None
    assert hashes["joint"].params["params.yaml"] == {"weight": 1}
