"""Takes over what workers made: nothing is executed here."""

from collections.abc import Iterable
from typing import Literal

from gensync_core.artefacts import atomic_path
from gensync_core.errors import UsageError
from gensync_core.paths import Project
from tasks import dvc_project, dvc_remote
from tasks.cloud_submission import Submission, read_parts
from tasks.dvc_project import Node, Policy
from tasks.dvc_remote import object_key
from tasks.lock_merge import Merge, merge_parts
from tasks.object_store import ObjectStore
from tasks.process import CommandFailed


def collect(project: Project, submission: Submission, how: Literal["pull", "lock", "run-cache"]) -> Merge:
    """Make the results of a submission the project's own.

    Args:
        project: the project.
        submission: has ended.
        how: `lock`: enter them into `dvc.lock`, fetch no data; `pull`: fetch the data, too; `run-cache`: let DVC find
            everything again by what it read, without the workers' lock parts.

    Raises:
        UsageError: `run-cache`, and DVC's default remote is another one.
        ArtefactBroken: the project, its lock or a part is damaged.
        StoreFailed: the store does not answer.
        CommandFailed: data could not be fetched.
    """
    if how == "run-cache":
        return _from_run_cache(project, submission)
    parts, _ = read_parts(submission)
    store = ObjectStore(ObjectStore(submission.settings.store).url("dvc"))
    merge = merge_parts(project, parts, store)
    if how == "pull":
        dvc_remote.pull(project, merge.merged)
        _fetch_uncached(project, store, merge.merged)
    return merge


def _from_run_cache(project: Project, submission: Submission) -> Merge:
    if not dvc_remote.is_default(project):
        raise UsageError(
            f"{project.root}: DVC's default remote is another one, and the run cache is looked for there only; "
            f"collect by pull or lock, or run dvc remote default --local {dvc_remote.REMOTE}"
        )
    merged: list[str] = []
    refused: dict[str, str] = {}
    for _, entry in submission.entries:
        for address in entry.stages if entry.status == "SUCCEEDED" else []:
            try:
                dvc_project.reproduce(project, Node(address=address, deps=(), policy=Policy()), pull=True, execute=False)
                merged.append(address)
            except CommandFailed:
                refused[address] = "is not in the run cache for the inputs that are here"
    return Merge(merged=tuple(merged), refused=refused)


def _fetch_uncached(project: Project, store: ObjectStore, addresses: Iterable[str]) -> None:
    """Outputs that DVC leaves to git (`cache: false`) are in the store because of the run cache; `dvc pull` skips them."""
    lock = dvc_project.read_lock(project)
    for address in addresses:
        for out in lock[address].get("outs", []):
            path = project.root / out["path"]
            if not path.exists() and not out["md5"].endswith(".dir"):
                with atomic_path(path) as temporary:
                    store.get(object_key(out["md5"]), temporary)
