"""Asks the core's footage gate about a file, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gensync_core.errors import FootageRejected
from tasks.process import ERROR_LINE, CommandFailed, command_env


class GateRejected(FootageRejected):
    """The gate refused the footage; `report` is all that it found."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


def check_footage(folder: Path, video: Path) -> dict[str, Any]:
    """What the gate found: `rejected`, `findings` [{code, severity, message, seconds}], `probe`, `faces`.

    Args:
        folder: the project whose `params.yaml` has the thresholds.
        video: any file.

    Raises:
        FootageRejected: there is no such file.
        CommandFailed: it could not be checked.
    """
    if not video.is_file():
        raise FootageRejected(f"{video}: no such file")
    command = [sys.executable, "-m", "gensync_core", "check", str(video.resolve())]
    done = subprocess.run(command, cwd=folder, env=command_env(), capture_output=True, text=True, errors="replace", check=False)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    explained = [match for line in done.stderr.splitlines() if (match := ERROR_LINE.match(line))]
    if explained:
        raise CommandFailed("check", explained[-1][2], exit_code=int(explained[-1][1]), retryable=False)
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    raise CommandFailed("check", f"failed with exit code {done.returncode}: {last}")


def raise_if_rejected(report: dict[str, Any]) -> None:
    """Refuse footage that is not fit for use.

    Raises:
        GateRejected: with the gate's reasons in one line.
    """
    if report["rejected"]:
        reasons = [finding["message"] for finding in report["findings"] if finding["severity"] == "reject"]
        raise GateRejected(f"{report['file']}: {'; '.join(reasons)}", report)
