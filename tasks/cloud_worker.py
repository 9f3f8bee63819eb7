"""What a Batch job runs: `python -m tasks.cloud_worker MANIFEST_URL`. One chain of stages in a folder of its own.

After every stage its outputs, DVC's record of the run and the chain's part of `dvc.lock` are in the store, so a worker that
takes over goes on at the stage in which this one was ended. Exit codes are those of the stages (3: footage rejected); 143
after SIGTERM, by which a spot machine says that it goes away.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gensync_core.artefacts import atomic_path
from gensync_core.errors import ArtefactBroken, GenSyncError, UsageError
from gensync_core.paths import Project
from gensync_core.speakers import Registry
from tasks import dvc_project, dvc_remote
from tasks.cloud_plan import SCHEMA_VERSION, check_manifest, stages_from_json
from tasks.cloud_submission import read_part
from tasks.code_bundle import fetch_bundle
from tasks.dvc_project import How, Node
from tasks.lock_text import without_others
from tasks.object_store import ObjectStore
from tasks.process import CommandFailed, stop_all_on_signal
from tasks.scratch_mirror import ScratchMirror

EVENT = "@cloud "
# A spot machine's container gets 30 s between SIGTERM and SIGKILL; the state has to be in the store by then.
_STAGE_GRACE_S = 10.0


def main(arguments: list[str]) -> int:
    """Run the chain that the manifest has for this array index; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tasks.cloud_worker s3://BUCKET/PREFIX/manifests/SHA256.json\n")
        return UsageError.exit_code
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with stop_all_on_signal():
            work(arguments[0], int(os.environ.get("AWS_BATCH_JOB_ARRAY_INDEX", "0")))
    except GenSyncError as error:
        say(f"error[{error.exit_code}]: {' '.join(str(error).split())}")
        return error.exit_code
    except OSError as error:
        say(f"error[1]: {error.filename or 'input/output'}: {error.strerror or error}")
        return 1
    return 0


def say(line: str) -> None:
    """One line of the job's log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell(**event: Any) -> None:
    """A line that the orchestrator reads."""
    say(EVENT + json.dumps(event))


def work(url: str, index: int) -> None:
    """Run one chain of a manifest.

    Raises:
        CommandFailed: a stage failed, with the exit code that it chose.
        ArtefactBroken: manifest, code, inputs or outputs are damaged.
        StoreFailed: the store does not answer.
    """
    store, manifest = read_manifest(url)
    try:
        entry = manifest["entries"][index]
    except IndexError:
        raise ArtefactBroken(f"{url}: has no entry {index}") from None
    attempt = os.environ.get("AWS_BATCH_JOB_ATTEMPT", "1")
    say(f"{entry['scope']}: {', '.join(stage['address'] for stage in entry['stages'])} (attempt {attempt})")
    with own_folder() as folder:
        fetch_bundle(store, manifest["code"], folder)
        project = Project(folder)
        keep_only(project, entry["scope"])
        dvc_remote.use_remote(project, manifest["remote"], alone=True)
        _take_results_above(project, store, entry)
        dvc_remote.pull(project, entry["pull"])
        with ScratchMirror(store, f"scratch/{entry['scope']}", project.scratch) as mirror:
            _run_chain(project, store, ObjectStore(manifest["remote"]), entry)
            mirror.discard()


def read_manifest(url: str) -> tuple[ObjectStore, dict[str, Any]]:
    """The store that a manifest lies in, and the manifest.

    Raises:
        UsageError: not the address of a manifest.
        ArtefactBroken: its content is not what its name says.
        StoreFailed: it cannot be fetched.
    """
    folder, slash, name = url.rpartition("/manifests/")
    if not slash:
        raise UsageError(f"{url!r} is not the address of a manifest (s3://BUCKET/PREFIX/manifests/SHA256.json)")
    store = ObjectStore(folder)
    content = store.get_bytes(f"manifests/{name}")
    if hashlib.sha256(content).hexdigest() != name.removesuffix(".json"):
        raise ArtefactBroken(f"{url}: its content does not match its name; submit again")
    try:
        return store, check_manifest(json.loads(content), url)
    except ValueError as error:
        raise ArtefactBroken(f"{url}: is no JSON ({error})") from error


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """An empty folder below `GENSYNC_WORK` (else the system's temporary folder) that nobody else uses; gone afterwards."""
    parent = os.environ.get("GENSYNC_WORK")
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="worker-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep_only(project: Project, scope: str) -> None:
    """Of the speakers leave the one whose chain this is: DVC reads all that it is told of, half a second for each speaker.

    Stages of everybody, and synthesis, see all speakers.

    Raises:
        ArtefactBroken: `dvc.lock` or `speakers.yaml` cannot be read.
    """
    speaker = project.registry().speakers.get(scope)
    if speaker is None:
        return
    Registry({scope: speaker}).save(project.speakers_file)
    lock = project.root / "dvc.lock"
    if lock.exists():
        left = without_others(lock.read_bytes(), scope, lock)
        with atomic_path(lock) as temporary:
            temporary.write_bytes(left)


def _take_results_above(project: Project, store: ObjectStore, entry: Mapping[str, Any]) -> None:
    """Enter into our `dvc.lock` what the jobs before this one made from the same code; the orchestrator checks it later."""
    for key in entry["needs"]:
        dvc_project.enter_results(project, read_part(store, key))


def _run_chain(project: Project, store: ObjectStore, remote: ObjectStore, entry: Mapping[str, Any]) -> None:
    done: dict[str, Any] = {}
    for node in stages_from_json(entry):
        started = time.monotonic()
        tell(address=node.address, state="started")
        try:
            how = _run_stage(project, node)
            done[node.address] = dvc_project.read_lock(project)[node.address]
            dvc_remote.publish_stage(project, node.address, done[node.address], remote)
        except GenSyncError:
            tell(address=node.address, state="failed", seconds=round(time.monotonic() - started, 1))
            raise
        part = {"schema_version": SCHEMA_VERSION, "stages": done}
        store.put_bytes(json.dumps(part, indent=1).encode(), entry["part"])
        tell(address=node.address, state=how, seconds=round(time.monotonic() - started, 1))


def _run_stage(project: Project, node: Node) -> How:
    """Run a stage as often as its policy says.

    Raises:
        CommandFailed: it failed for good.
    """
    for attempt in range(node.policy.retries + 1):
        try:
            return dvc_project.reproduce(project, node, pull=True, on_line=say, grace_s=_STAGE_GRACE_S)
        except CommandFailed as error:
            if not error.retryable or attempt == node.policy.retries:
                raise
            say(f"{error}; again in {node.policy.retry_delay_s:g} s")
            time.sleep(node.policy.retry_delay_s)
    raise AssertionError("a policy allows one attempt at least")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
