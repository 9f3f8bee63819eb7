"""Stages laid out as Batch jobs: chains, arrays, what waits for what, resources."""

import pytest

from gensync_core.errors import ArtefactBroken
from tasks.cloud_plan import Group, canonical, check_manifest, entry_to_json, lay_out, stages_from_json
from tasks.dvc_project import Node, Policy, StageInputs

GPU = Policy(cpu=4, memory_gb=14, gpu=1, deadline_s=600, retries=0)
CPU = Policy(cpu=1, memory_gb=2, deadline_s=100, retries=1, retry_delay_s=5)


def node(address: str, *deps: str, policy: Policy = CPU) -> Node:
    return Node(address=address, deps=deps, policy=policy)


def inputs_of(
    nodes: list[Node], tracked: dict[str, str] | None = None, above: dict[str, str] | None = None
) -> dict[str, StageInputs]:
    tracked, above = tracked or {}, above or {}
    return {
        one.address: StageInputs(
            command="x",
            stages=(*one.deps, *([above[one.address]] if one.address in above else [])),
            tracked=(tracked[one.address],) if one.address in tracked else (),
            files=(),
            outs=(),
        )
        for one in nodes
    }


def shape(groups: list[Group]) -> list[dict[str, list[str]]]:
    return [{entry.scope: [one.address for one in entry.stages] for entry in group.entries} for group in groups]


def test_speakers_form_an_array_and_the_joint_stage_waits_for_all() -> None:
    nodes = []
    for name in ("anna", "bob"):
        nodes += [node(f"ingest@{name}"), node(f"track@{name}", f"ingest@{name}")]
    nodes.append(node("joint", "track@anna", "track@bob", "ingest@anna", "ingest@bob"))
    nodes += [node(f"evaluate@{name}", "joint", f"track@{name}") for name in ("anna", "bob")]
    groups = lay_out(nodes, inputs_of(nodes, tracked={"ingest@anna": "data/raw/anna.mp4.dvc"}))
    assert shape(groups) == [
        {"anna": ["ingest@anna", "track@anna"], "bob": ["ingest@bob", "track@bob"]},
        {"shared": ["joint"]},
        {"anna": ["evaluate@anna"], "bob": ["evaluate@bob"]},
    ]
    assert [group.needs for group in groups] == [(), (0,), (0, 1)]
    assert [group.aligned for group in groups] == [(), (), (0,)]
    assert groups[0].entries[0].pull == ("data/raw/anna.mp4.dvc",)
    assert groups[1].entries[0].needs == ("0-anna", "0-bob")
    assert groups[1].entries[0].pull == ("ingest@anna", "ingest@bob", "track@anna", "track@bob")
    assert groups[0].title == "ingest..track"


def test_gpu_stages_go_to_a_job_of_their_own_that_waits_entry_by_entry() -> None:
    nodes = []
    for name in ("anna", "bob"):
        nodes += [
            node(f"ingest@{name}"),
            node(f"coarse@{name}", f"ingest@{name}", policy=GPU),
            node(f"report@{name}", f"coarse@{name}"),
        ]
    groups = lay_out(nodes, inputs_of(nodes))
    assert [(group.gpus, group.vcpus, group.memory_mib, group.aligned) for group in groups] == [
        (0, 1, 2048, ()),
        (1, 4, 14336, (0,)),
        (0, 1, 2048, (1,)),
    ]


def test_an_array_is_aligned_only_with_one_of_the_same_speakers() -> None:
    nodes = [node("ingest@anna"), node("ingest@bob"), node("coarse@anna", "ingest@anna", policy=GPU)]
    groups = lay_out(nodes, inputs_of(nodes))
    assert [len(group.entries) for group in groups] == [2, 1]
    assert groups[1].needs == (0,)
    assert groups[1].aligned == ()


def test_who_needs_nothing_does_not_wait_for_others() -> None:
    nodes = [node("ingest@anna"), node("coarse@anna", "ingest@anna", policy=GPU), node("coarse@bob", policy=GPU)]
    groups = lay_out(nodes, inputs_of(nodes, above={"coarse@bob": "ingest@bob"}))
    waiting = {entry.scope: (group.needs, entry.pull) for group in groups for entry in group.entries if group.gpus}
    assert waiting == {"anna": ((0,), ("ingest@anna",)), "bob": ((), ("ingest@bob",))}


def test_the_joint_stage_does_not_wait_for_those_it_does_not_need() -> None:
    nodes = [node("ingest@anna"), node("ingest@bob"), node("ingest@radio"), node("joint", "ingest@anna", "ingest@bob")]
    nodes.append(node("adapt@radio", "joint", "ingest@radio"))
    groups = lay_out(nodes, inputs_of(nodes))
    assert shape(groups) == [
        {"radio": ["ingest@radio"]},
        {"anna": ["ingest@anna"], "bob": ["ingest@bob"]},
        {"shared": ["joint"]},
        {"radio": ["adapt@radio"]},
    ]
    assert [group.needs for group in groups] == [(), (), (1,), (0, 2)]


def test_resources_and_deadline_are_those_of_the_hungriest_chain() -> None:
    big = Policy(cpu=3, memory_gb=6.5, deadline_s=1000, retries=0)
    nodes = [node("a@anna"), node("b@anna", "a@anna", policy=big), node("a@bob")]
    group = lay_out(nodes, inputs_of(nodes))[0]
    assert (group.vcpus, group.memory_mib) == (3, 6656)
    assert group.attempt_s == 100 + 5 + 100 + 1000 + 900
    nodes = [node("a@anna", policy=Policy(deadline_s=None))]
    assert lay_out(nodes, inputs_of(nodes))[0].attempt_s > 86_400


def test_what_a_worker_reads_is_what_was_written() -> None:
    nodes = [node("ingest@anna", policy=GPU), node("joint", "ingest@anna")]
    first, second = (group.entries[0] for group in lay_out(nodes, inputs_of(nodes)))
    parts = {first.id: "parts/1", second.id: "parts/2"}
    assert stages_from_json(entry_to_json(first, parts)) == [Node(address="ingest@anna", deps=(), policy=GPU)]
    assert entry_to_json(second, parts)["needs"] == ["parts/1"]
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})


@pytest.mark.parametrize("content", [[], {}, {"schema_version": 99}, {"schema_version": 1, "code": "x"}])
def test_a_manifest_of_another_version_is_refused(content: object) -> None:
    with pytest.raises(ArtefactBroken, match="manifest"):
        check_manifest(content, "manifest")
