"""What this process holds in memory, in bytes."""

import platform
import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most that it has held so far."""
    if _STATUS.exists():  # getrusage counts the parent, too: what it held when it forked
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1 << 10)


def resident_bytes() -> int:
    """What it holds now; Linux only."""
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10
