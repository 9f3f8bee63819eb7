"""What a process holds in memory, in bytes."""

import platform
import resource
from pathlib import Path

RSS_UNIT = 1 if platform.system() == "Darwin" else 1 << 10
"""Bytes in which `getrusage` counts."""


def peak_bytes() -> int:
    """The most that this process has held so far."""
    if not Path("/proc").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    return peak_bytes_of("self")  # getrusage counts the parent, too: what it held when it forked


def peak_bytes_of(pid: int | str) -> int:
    """The most that a process has held so far; 0 if it is gone; Linux only."""
    return _status_bytes(pid, "VmHWM")


def resident_bytes() -> int:
    """What this process holds now; Linux only."""
    return _status_bytes("self", "VmRSS")


def _status_bytes(pid: int | str, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), 0)
