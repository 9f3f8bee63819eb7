"""How far a long stage is, as a bar among the artifacts of its Prefect run."""

import logging
import re
import time
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from gensync_core.progress import Tick

INTERVAL_S = 5.0

_NOT_IN_KEYS = re.compile(r"[^a-z0-9]+")


class ProgressArtifact:
    """Fed with a stage's ticks from the thread that runs its task; a stage that is over within seconds gets no bar.

    The server is asked at most every five seconds. If it does not answer, the stage goes on without a bar.
    """

    def __init__(self, address: str, logger: "logging.Logger | logging.LoggerAdapter[Any]") -> None:
        self._address, self._logger = address, logger
        self._artifact: UUID | None = None
        self._asked = time.monotonic()
        self._broken = False

    def ticked(self, tick: Tick) -> None:
        """Show a tick, unless one was shown a moment ago."""
        if tick.total and time.monotonic() - self._asked >= INTERVAL_S:
            self._show(100 * min(tick.done / tick.total, 1.0), _description(self._address, tick))

    def ended(self) -> None:
        """Show that the stage is done."""
        if self._artifact is not None:
            self._show(100.0, f"{self._address}: done")

    def _show(self, percent: float, description: str) -> None:
        if self._broken:
            return
        try:
            if self._artifact is None:
                key = f"progress-{artifact_key(self._address)}"
                made: Any = create_progress_artifact(percent, key=key, description=description)
                self._artifact = made
            else:
                update_progress_artifact(self._artifact, percent, description=description)
        except Exception as error:
            self._broken = True
            self._logger.warning("%s: its progress is not shown any more: %s", self._address, error)
        self._asked = time.monotonic()


def artifact_key(name: str) -> str:
    """The name with nothing but what Prefect allows in a key."""
    return _NOT_IN_KEYS.sub("-", name.lower()).strip("-")


def _description(address: str, tick: Tick) -> str:
    left = f"{tick.eta_s:.0f} s left" if tick.eta_s is not None else ""
    return ", ".join(part for part in (address, tick.job, f"{tick.done} of {tick.total}", left, tick.note) if part)
