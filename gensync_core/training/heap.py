"""How the C library treats freed memory during a training."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 512 << 20, 32 << 20


def keep_freed_memory() -> bool:
    """Tell glibc not to give freed memory back to the system at once; returns whether it listens (elsewhere nothing is done).

    Every step frees some 30 MB of temporary tensors. glibc returns them to the system and asks for them again in the next
    step, and the system clears them page by page: up to a tenth of a step's time.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES))
