"""Where a flow's stages run: in threads of its own process, or on a Dask cluster, by one setting.

`GENSYNC_DASK` is a number of local worker processes (`2`), or the address of a scheduler (`tcp://host:8786`) whose workers
see the project's folder under the same path and have this package installed.
"""

import os
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from gensync_core.errors import UsageError

VARIABLE = "GENSYNC_DASK"
STAGES_AT_ONCE = max(1, int(os.environ.get("GENSYNC_STAGES_AT_ONCE", "2")))


def stage_runner() -> Any:
    """As the setting says; each worker runs one stage at a time, in a process of the stage's own.

    Raises:
        UsageError: the setting is no number and no address, or Dask is not installed.
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    if not wanted:
        return ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE)
    try:
        from prefect_dask import DaskTaskRunner
    except ModuleNotFoundError as error:
        raise UsageError(f"{VARIABLE} is set, but Dask is not installed: pip install 'gensync[dask]'") from error
    if "://" in wanted:
        return DaskTaskRunner(address=wanted)
    if not wanted.isdigit() or not int(wanted):
        raise UsageError(f"{VARIABLE}={wanted}: expected a number of workers, or a scheduler's address (tcp://HOST:PORT)")
    return DaskTaskRunner(
        cluster_kwargs={"n_workers": int(wanted), "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}
    )
