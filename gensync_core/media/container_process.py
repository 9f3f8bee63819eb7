"""The process in which PyAV reads containers: started when first needed, ended with this one, replaced when it fails."""

import atexit
import json
import os
import subprocess
import sys
import threading
from typing import Any

from gensync_core.errors import GenSyncError
from gensync_core.media import container
from gensync_core.media.ffmpeg_command import killed_after

_START_LIMIT_S = 120.0


class ReaderFailed(GenSyncError):
    """Reading took too long or too much memory, or made PyAV crash."""


def read_container(request: dict[str, Any], limit_s: float) -> dict[str, Any]:
    """What `media.container` answers to a request.

    Raises:
        ReaderFailed: there is no answer within `limit_s`, or none at all.
        GenSyncError: PyAV does not start.
    """
    return _reader.ask(request, limit_s)


def start_ahead() -> None:
    """Start the process before it is needed: who asks first then need not wait while it loads PyAV, a fifth of a second."""
    _reader.start()


class _Reader:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def start(self) -> None:
        with self._lock:
            self._launched()

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            with killed_after(process, limit_s) as expired:
                try:
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    process.stdin.flush()
                    line = process.stdout.readline()
                except BrokenPipeError:
                    line = b""
                except BaseException:
                    self._end()  # its answer would be taken for the next one's
                    raise
            if line.endswith(b"\n"):
                return json.loads(line)
            self._end()
            if expired.is_set():
                raise ReaderFailed(f"could not be read within {limit_s:.0f} s")
            raise ReaderFailed("makes the reader crash")

    def forget(self) -> None:
        """After a fork: the process is the parent's."""
        self._lock, self._process = threading.Lock(), None

    def end(self) -> None:
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        process = self._launched()
        if not self._ready:
            assert process.stdout is not None
            with killed_after(process, _START_LIMIT_S):
                self._ready = bool(process.stdout.readline())
            if not self._ready:
                self._end()
                raise GenSyncError(f"PyAV cannot be started; try `{sys.executable} -c 'import av'`, and install again")
        return process

    def _launched(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            # -P: the modules beside the program have names that others have too.
            command = [sys.executable, "-P", container.__file__]
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            self._process, self._ready = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing), False
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # what was still buffered has no reader any more


_reader = _Reader()
atexit.register(_reader.end)
os.register_at_fork(after_in_child=_reader.forget)
