"""Lays the dirty stages out as AWS Batch jobs: chains of one speaker, in arrays, each with the resources that it needs.

A chain is a run of stages of one speaker (or of one joint stage) that need the same kind of machine and nothing from others
in between. Chains at the same place of the graph form one job: an array with an entry per speaker.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gensync_core.errors import ArtefactBroken, UsageError
from tasks.dvc_project import Node, Policy, StageInputs

SCHEMA_VERSION = 1
# AWS Batch: entries of an array.
_MOST_ENTRIES = 10_000
# A stage without a deadline gets a day; fetching and pushing come on top.
_NO_DEADLINE_S = 86_400.0
_TRANSFER_S = 900.0
SHARED = "shared"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One chain: what one worker runs, stage after stage.

    Attributes:
        id: unique within the submission.
        scope: the speaker or synthesis job; `shared` for stages of everybody.
        stages: in the order in which they run.
        pull: stages and `.dvc` files whose files the chain reads.
        needs: ids of the entries that have to end well before.
    """

    id: str
    scope: str
    stages: tuple[Node, ...]
    pull: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One Batch job: a single chain, or an array of them.

    Attributes:
        entries: by array index.
        needs: indices of the groups that have to end before.
        aligned: those of `needs` of which each entry needs only the one of the same index.
        vcpus: cores of each worker.
        memory_mib: memory of each worker.
        gpus: GPUs of each worker.
        attempt_s: seconds after which Batch ends an attempt.
    """

    entries: tuple[Entry, ...]
    needs: tuple[int, ...]
    aligned: tuple[int, ...]
    vcpus: int
    memory_mib: int
    gpus: int
    attempt_s: int

    @property
    def title(self) -> str:
        """The kinds of stages of it, for people: `ingest..coarse`."""
        kinds = list(dict.fromkeys(node.kind for entry in self.entries for node in entry.stages))
        return kinds[0] if len(kinds) == 1 else f"{kinds[0]}..{kinds[-1]}"


def scope_of(address: str) -> str:
    """The speaker or job of a stage, `shared` where it has none."""
    return address.partition("@")[2] or SHARED


def lay_out(nodes: Sequence[Node], inputs: Mapping[str, StageInputs]) -> list[Group]:
    """Jobs for the stages of a plan, each after those it needs.

    Args:
        nodes: from `tasks.dvc_project.plan`: each after those that it depends on.
        inputs: from `tasks.dvc_project.stage_inputs`.

    Raises:
        UsageError: an array would have more entries than AWS Batch takes.
    """
    levels = _levels(nodes)
    # Speakers whom a shared stage waits for are apart from the others: who fails among those holds nobody up.
    waited_for = {scope_of(dep) for node in nodes if scope_of(node.address) == SHARED for dep in node.deps}
    buckets: dict[tuple[int, bool, bool, bool], dict[str, list[Node]]] = {}
    for node in nodes:
        scope = scope_of(node.address)
        key = (levels[node.address], node.policy.gpu > 0, scope == SHARED, scope in waited_for)
        bucket = buckets.setdefault(key, {})
        bucket.setdefault(scope, []).append(node)
    groups: list[Group] = []
    entry_of: dict[str, str] = {}
    group_of: dict[str, int] = {}
    for key in sorted(buckets):
        by_needs: dict[tuple[int, ...], list[Entry]] = {}
        for scope, chain in buckets[key].items():
            entry = _entry(scope, chain, inputs, entry_of)
            by_needs.setdefault(tuple(sorted({group_of[need] for need in entry.needs})), []).append(entry)
        for needs, entries in by_needs.items():
            index = len(groups)
            named = [replace(entry, id=f"{index}-{entry.scope}") for entry in entries]
            groups.append(_group(named, needs, groups))
            for entry in named:
                group_of[entry.id] = index
                entry_of.update({node.address: entry.id for node in entry.stages})
    return groups


def _levels(nodes: Iterable[Node]) -> dict[str, int]:
    """How often the way to a stage changes the speaker or the kind of machine."""
    levels: dict[str, int] = {}
    kinds: dict[str, tuple[str, bool]] = {}
    for node in nodes:
        kinds[node.address] = (scope_of(node.address), node.policy.gpu > 0)
        levels[node.address] = max((levels[dep] + (kinds[dep] != kinds[node.address]) for dep in node.deps), default=0)
    return levels


def _entry(scope: str, chain: list[Node], inputs: Mapping[str, StageInputs], entry_of: Mapping[str, str]) -> Entry:
    own = {node.address for node in chain}
    read = {name for node in chain for name in (*inputs[node.address].stages, *inputs[node.address].tracked)} - own
    needs = {entry_of[dep] for node in chain for dep in node.deps if dep not in own}
    return Entry(id="", scope=scope, stages=tuple(chain), pull=tuple(sorted(read)), needs=tuple(sorted(needs)))


def _group(entries: list[Entry], needs: tuple[int, ...], groups: list[Group]) -> Group:
    if len(entries) > _MOST_ENTRIES:
        raise UsageError(f"{len(entries)} speakers at once are more than AWS Batch takes ({_MOST_ENTRIES}); name fewer")
    policies = [node.policy for entry in entries for node in entry.stages]
    return Group(
        entries=tuple(entries),
        needs=needs,
        aligned=tuple(index for index in needs if _aligned(entries, groups[index])),
        vcpus=max(policy.cpu for policy in policies),
        memory_mib=math.ceil(max(policy.memory_gb for policy in policies) * 1024),
        gpus=max(policy.gpu for policy in policies),
        attempt_s=math.ceil(max(sum(_longest(node.policy) for node in entry.stages) for entry in entries) + _TRANSFER_S),
    )


def _aligned(entries: list[Entry], above: Group) -> bool:
    """Whether each entry needs, of the group above, only the one that has its index; arrays have two entries or more."""
    ids = [entry.id for entry in above.entries]
    if len(entries) < 2 or len(entries) != len(ids):
        return False
    return all([need for need in entry.needs if need in ids] == [ids[index]] for index, entry in enumerate(entries))


def _longest(policy: Policy) -> float:
    return (policy.deadline_s or _NO_DEADLINE_S) + policy.retries * (policy.retry_delay_s + (policy.deadline_s or 0))


def entry_to_json(entry: Entry, parts: Mapping[str, str]) -> dict[str, Any]:
    """An entry as manifests have it; `parts`: entry id -> key of its lock part."""
    return {
        "id": entry.id,
        "scope": entry.scope,
        "stages": [{"address": node.address, "policy": asdict(node.policy)} for node in entry.stages],
        "pull": list(entry.pull),
        "part": parts[entry.id],
        "needs": [parts[need] for need in entry.needs],
    }


def stages_from_json(entry: Mapping[str, Any]) -> list[Node]:
    """The stages of a manifest's entry."""
    return [Node(address=stage["address"], deps=(), policy=Policy(**stage["policy"])) for stage in entry["stages"]]


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON that is the same for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def check_manifest(content: Any, where: str) -> dict[str, Any]:
    """A manifest as a worker reads it.

    Raises:
        ArtefactBroken: it is not one that this version writes.
    """
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise ArtefactBroken(f"{where}: not a manifest of schema version {SCHEMA_VERSION}; image and orchestrator differ")
    missing = {"code", "remote", "entries"} - set(content)
    if missing:
        raise ArtefactBroken(f"{where}: lacks {', '.join(sorted(missing))}")
    return content
