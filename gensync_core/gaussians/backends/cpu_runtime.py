"""How CPU kernels are compiled and spread over threads.

Kernels are numba functions that release the GIL and take a range of independent items `[first, last)`; a small thread
pool of our own hands out the ranges. numba's own `parallel=True` is not used: its OpenMP team beside torch's collapses
on a loaded machine. Every item owns what it writes, so results do not depend on the number of threads.
"""

import functools
import hashlib
import inspect
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gensync_core.errors import UsageError

try:
    import numba
    from numba.core.caching import UserProvidedCacheLocator
except Exception as error:  # a missing wheel, or a library that does not load: whatever it is, the reference can go on
    numba, _import_error = None, error
else:

    class KernelLocator(UserProvidedCacheLocator):
        """Where numba keeps a kernel: the same place for every copy of the same sources, so that workspaces share them."""

        @classmethod
        def get_suitable_cache_subpath(cls, py_file: str) -> str:
            """The name of the source's folder; numba's own choice is a digest of its path."""
            return Path(py_file).parent.name


_log = logging.getLogger(__name__)
_CHUNKS_PER_THREAD = 6


def why_not_available() -> str | None:
    """None where compiled kernels can run here, else the reason in words and what to do."""
    if numba is not None:
        return None
    return (
        f"the CPU kernels cannot run here: numba does not load ({_import_error}). Reinstall numba and llvmlite, or go on "
        "without them: render.backend: reference in params.yaml gives the same pictures, some hundred times slower"
    )


@functools.cache
def cache_folder() -> Path | None:
    """The first writable folder for compiled kernels; None where there is none (then every process compiles anew).

    The name carries a digest of all sources of kernels in the core, because numba notices a change in the kernel's own file
    only, not in a constant or function that it takes from another.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted([*here.glob("cpu*.py"), *here.parents[1].glob("*/*kernel*.py")]):
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:12]}"
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    configured = _numba_config().CACHE_DIR
    bases = [Path(configured)] if configured else []
    for base in [*bases, user_cache / "gensync", here / "__pycache__", Path(tempfile.gettempdir()) / f"gensync-{os.getuid()}"]:
        folder = base / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        if folder.stat().st_uid == os.getuid():
            return folder
    _log.warning("no writable folder for compiled kernels: they are compiled again in every process (half a minute)")
    return None


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with numba: no GIL, fast maths, cached on disk.

    Fast maths lets LLVM reorder sums, which vectorises reductions, and assumes that no NaN comes in: callers check.
    """
    return _compiled(function, fastmath=True)


def vector_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for kernels that spell their vectors out (`cpu_simd`): products are fused with sums, nothing is reordered."""
    return _compiled(function, fastmath={"contract", "nsz"})


def _compiled(function: Callable[..., Any], fastmath: bool | set[str]) -> Callable[..., Any]:
    # The run-time type checker of the tests wraps every function; numba needs the plain one.
    plain = inspect.unwrap(function)
    if numba is None:
        return _refuse
    config, folder = _numba_config(), cache_folder()
    user_settings = config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES
    config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = str(folder or ""), f"{__name__}.KernelLocator"
    try:
        return numba.njit(nogil=True, fastmath=fastmath, error_model="numpy", boundscheck=False, cache=folder is not None)(
            plain
        )
    finally:
        config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = user_settings


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is pasted into the kernels that call it."""
    plain = inspect.unwrap(function)
    if numba is None:
        return plain
    return numba.njit(inline="always", fastmath=True, error_model="numpy", boundscheck=False)(plain)


def _numba_config() -> Any:
    assert numba is not None
    return numba.config


def _refuse(*_: Any) -> None:
    raise UsageError(why_not_available() or "")


class _Workers:
    """The process-wide pool; made on first use, forgotten in a forked child, whose threads are gone."""

    def __init__(self) -> None:
        self.default_threads = 1
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def pool(self, size: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._size < size:
                # A smaller pool that is still in use finishes its work and ends when nobody holds it.
                self._pool, self._size = ThreadPoolExecutor(size, thread_name_prefix="gensync-kernel"), size
            return self._pool

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._pool, self._size = None, 0


_workers = _Workers()
os.register_at_fork(after_in_child=_workers.forget)


def set_default_threads(threads: int) -> None:
    """Threads of kernels whose caller names no number (losses, hash grid); changes speed, never a result."""
    _workers.default_threads = threads


def run_in_chunks(function: Callable[..., None], num_items: int, *arguments: Any, threads: int | None = None) -> None:
    """Call `function(first, last, *arguments)` over ranges that cover `num_items` items.

    The calling thread works too. Ranges are handed out on demand, so that a slow one holds nobody up.
    """
    threads = _workers.default_threads if threads is None else threads
    if threads <= 1 or num_items <= 1:
        function(0, num_items, *arguments)
        return
    size = max(1, -(-num_items // (threads * _CHUNKS_PER_THREAD)))
    starts, lock = iter(range(0, num_items, size)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                first = next(starts, None)
            if first is None:
                return
            function(first, min(num_items, first + size), *arguments)

    others = [_workers.pool(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        # Wait in any case: the others write into the caller's arrays.
        errors = [error for error in (other.exception() for other in others) if error is not None]
    if errors:
        raise errors[0]
