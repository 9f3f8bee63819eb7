"""Who has to wait for whom, across everything that one Prefect server runs.

Two global concurrency limits, made where they are missing and left as they are where somebody changed them. They hold
on a standing server; a command that runs on its own has the lock files of `tasks.registration` and of DVC.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate as LimitUpdate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from gensync_core.errors import GenSyncError

GPU = "gensync-gpu"
WRITER = "dvc-writer"

_LONGEST_WRITE_S = 600.0
_NVIDIA = Path("/proc/driver/nvidia/gpus")


def num_gpus() -> int:
    """GPUs of this machine that the process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    return present if visible is None else min(present, len([name for name in visible.split(",") if name.strip()]))


@contextmanager
def gpu_slots(wanted: int) -> Iterator[None]:
    """Wait for GPUs and hold them; nothing is waited for on a machine that has none."""
    held = min(wanted, num_gpus())
    if not held or not _is_standing():
        yield
        return
    _make_limits(PREFECT_API_URL.value())
    with concurrency(GPU, occupy=held, strict=True, raise_on_lease_renewal_failure=False):
        yield


@contextmanager
def writing() -> Iterator[None]:
    """Hold the one slot of those who write `speakers.yaml`, `synth.yaml` or `dvc.lock` outside of a stage.

    Raises:
        GenSyncError: nobody gave the slot back for ten minutes.
    """
    if not _is_standing():
        yield
        return
    _make_limits(PREFECT_API_URL.value())
    slot = concurrency(WRITER, strict=True, timeout_seconds=_LONGEST_WRITE_S, raise_on_lease_renewal_failure=False)
    try:
        slot.__enter__()
    except TimeoutError:
        raise GenSyncError(
            f"the Prefect limit {WRITER!r} was taken for {_LONGEST_WRITE_S / 60:.0f} minutes; if nothing is being registered, "
            f"somebody died with it: prefect gcl update {WRITER} --active-slots 0"
        ) from None
    try:
        yield
    finally:
        slot.__exit__(None, None, None)


def free_all_slots(api_url: str) -> None:
    """Take every slot back; only right on a server that was started just now: it has forgotten who held them."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        for limit in client.read_global_concurrency_limits(limit=200, offset=0):
            if limit.active_slots:
                client.update_global_concurrency_limit(limit.name, LimitUpdate(active_slots=0))


def _is_standing() -> bool:
    return bool(PREFECT_API_URL.value())


@lru_cache
def _make_limits(_server: str) -> None:
    with get_client(sync_client=True) as client:
        for name, size in ((GPU, max(1, num_gpus())), (WRITER, 1)):
            try:
                client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                # Another process may have made it in between.
                with suppress(ObjectAlreadyExists):
                    client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=size))
