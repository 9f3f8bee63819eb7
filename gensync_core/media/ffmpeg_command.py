"""The only place that starts ffmpeg: which binary, what it may open, how long it may take.

Footage comes from strangers. A text file named `.mp4` can be a concat script that makes ffmpeg read its neighbours, and
a few hundred kilobytes can decode to gigabytes: every input is limited to known containers, to the one file that was
named, and to `MAX_PIXELS` a frame; every ffmpeg to so much memory, to so long a wait (`Patience`), and to a folder that is
gone. It hears no terminal and is killed, not asked.
"""

import functools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import ffmpeg

from gensync_core.errors import FootageRejected, GenSyncError

MAX_PIXELS = 4096 * 2176
FORMATS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "wav", "flac", "mp3", "ogg", "aac")
THREADS = 2
LEAST_WAIT_S = 60.0
LOOKING = "bilinear+accurate_rnd+bitexact"
"""Scaling of pictures that are measured and not kept: two thirds of the time."""
SCALING = "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"

_BINARY_VARIABLE = "GENSYNC_FFMPEG"
_STDERR_TAIL_CHARACTERS = 600
_EXIT_LIMIT_S = 60.0
_MAX_STREAMS = 64
_MEMORY_BYTES = 4 << 30  # 3840x2160 in 10 bits takes a tenth of it
_ALLOCATION_BYTES = 512 << 20
_MESSAGES_BYTES = 256 << 20  # damaged footage makes a line or more for each of its pictures
_PIXELS_PER_SECOND = 20e6
_MOST_PICTURES_PER_SECOND = 60
_BIT_EXACT = {
    "fflags": "+bitexact",
    "flags:v": "+bitexact",
    "flags:a": "+bitexact",
    "map_metadata": -1,
    "map_chapters": -1,
    "threads": THREADS,
}


class FfmpegFailed(GenSyncError):
    """ffmpeg ended with an error or was stopped at its time limit; the message ends with what it said last."""


class Patience(NamedTuple):
    """How long ffmpeg may make us wait.

    Attributes:
        mean_s: for each block: a scan may take the longer in all, the longer its footage is.
        extra_s: beyond that, for any one block (the first waits for ffmpeg to start) and for all together.
    """

    mean_s: float | int
    extra_s: float | int = LEAST_WAIT_S

    def left_s(self, num_blocks: int, waited_s: float) -> float:
        """For the next block, after `num_blocks` that took `waited_s`."""
        in_all_s = self.extra_s + self.mean_s * (num_blocks + 1)
        return max(min(self.extra_s + self.mean_s, in_all_s - waited_s), 0.0)


def work_s(width: int, height: int, seconds: float | int) -> float:
    """What decoding and scaling of a video may take at most: a second for each of its seconds, and more for large pictures.

    Source: own choice. 3840x2160 at 60 pictures a second, H.265 in 10 bits, took a quarter of it on two busy cores.
    """
    return seconds * (1 + _MOST_PICTURES_PER_SECOND * width * height / _PIXELS_PER_SECOND)


def ffmpeg_binary() -> str:
    """Path of the ffmpeg to use: `GENSYNC_FFMPEG`, else the one on PATH, else the one inside the imageio-ffmpeg wheel.

    Raises:
        GenSyncError: `GENSYNC_FFMPEG` names something that cannot be run, or there is no ffmpeg at all.
    """
    chosen = os.environ.get(_BINARY_VARIABLE)
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise GenSyncError(f"{_BINARY_VARIABLE}={chosen}: not a program that can be run; correct or unset it")
        return found
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise GenSyncError(f"no ffmpeg: put one on PATH, or set {_BINARY_VARIABLE} to its path") from error


def known_filters() -> frozenset[str]:
    """Names of the filters that the ffmpeg in use was built with."""
    return _filters_of(ffmpeg_binary())


@functools.lru_cache(maxsize=4)
def _filters_of(binary: str) -> frozenset[str]:
    arguments = [binary, "-nostdin", "-hide_banner", "-loglevel", "error", "-filters"]
    try:
        listing = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=_EXIT_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GenSyncError(
            f"{binary}: does not list its filters ({error}); set {_BINARY_VARIABLE} to another ffmpeg"
        ) from error
    rows = [line.split() for line in listing.stdout.decode(errors="replace").splitlines()]
    return frozenset(row[1] for row in rows if len(row) > 2 and "->" in row[2])


def file_url(path: Path) -> str:
    """A name that ffmpeg and PyAV can only take for a local file, whatever characters it starts with."""
    return f"file:{path.absolute()}"


def input_limits() -> dict[str, str]:
    """Options of a container that was made elsewhere; ffmpeg and PyAV take the same."""
    return {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file", "max_streams": str(_MAX_STREAMS)}


def video_input(path: Path, **options: Any) -> Any:
    """An ffmpeg-python input of which only pictures are read; cover art does not count as video.

    Raises:
        FootageRejected: there is no such file.
    """
    options = {**input_limits(), "max_pixels": MAX_PIXELS, "threads": THREADS, **options}
    return ffmpeg.input(file_url(_existing(path)), **options)["V:0"]


def audio_input(path: Path, **options: Any) -> Any:
    """An ffmpeg-python input of which only the first sound track is read.

    Raises:
        FootageRejected: there is no such file.
    """
    return ffmpeg.input(file_url(_existing(path)), **{**input_limits(), **options})["a:0"]


def frame_input(width: int, height: int, fps: float | int, pixel_format: str) -> Any:
    """An ffmpeg-python input of raw frames on standard input."""
    return ffmpeg.input("pipe:0", format="rawvideo", pix_fmt=pixel_format, s=f"{width}x{height}", r=fps)


def beside(left: Any, right: Any) -> Any:
    """Two streams of equal height in one."""
    return ffmpeg.filter([left, right], "hstack")


def to_file(streams: list[Any], path: Path, **options: Any) -> Any:
    """An ffmpeg-python output whose bytes depend on the input and the options alone."""
    return ffmpeg.output(*streams, file_url(path), **{**_BIT_EXACT, **options})


def to_pipe(stream: Any, **options: Any) -> Any:
    """An ffmpeg-python output on standard output."""
    return ffmpeg.output(stream, "pipe:1", **{**_BIT_EXACT, **options})


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FootageRejected(f"{path}: no such file")
    return path


def _arguments(output: Any, *extra: str) -> list[str]:
    binary = os.path.abspath(ffmpeg_binary())  # it starts in another folder
    most = ("-max_alloc", str(_ALLOCATION_BYTES))
    quiet = output.global_args("-hide_banner", "-loglevel", "error", "-nostats", *most, *extra)
    return [str(argument) for argument in ffmpeg.compile(quiet, cmd=binary, overwrite_output=True)]


def run(output: Any, limit_s: float, on_frame: Callable[[int], None] | None = None) -> None:
    """Run an output to its end; `on_frame` hears the number of frames written so far about twice a second.

    Raises:
        FfmpegFailed: ffmpeg reported an error or took longer than `limit_s`.
    """
    arguments = _arguments(output, "-nostdin", *(("-progress", "pipe:1") if on_frame else ()))
    with _started(arguments, stdout=subprocess.PIPE) as (process, fail), killed_after(process, limit_s) as expired:
        assert process.stdout is not None
        for line in process.stdout:
            key, _, value = line.partition(b"=")
            if on_frame is not None and key == b"frame" and value.strip().isdigit():
                on_frame(int(value))
        if process.wait() != 0 or expired.is_set():
            fail(limit_s if expired.is_set() else None)


def read_all(output: Any, limit_s: float, most_bytes: int) -> bytes:
    """Everything that a `to_pipe` output writes, or the first `most_bytes` of it.

    Raises:
        FfmpegFailed: ffmpeg reported an error or took longer than `limit_s`.
    """
    with _started(_arguments(output, "-nostdin"), most_file_bytes=_MESSAGES_BYTES) as (process, fail):
        assert process.stdout is not None
        with killed_after(process, limit_s) as expired:
            content = process.stdout.read(most_bytes)
            if (len(content) < most_bytes and process.wait() != 0) or expired.is_set():
                fail(limit_s if expired.is_set() else None)
    return content


def read_blocks(
    output: Any,
    make_block: Callable[[], memoryview],
    patience: Patience,
    on_messages: Callable[[IO[bytes]], None] | None = None,
) -> Iterator[None]:
    """Fill blocks from a `to_pipe` output, one for each step, until it ends.

    `on_messages` hears at the end, good or bad, all that ffmpeg wrote to its standard error.

    Raises:
        FfmpegFailed: ffmpeg reported an error, stopped within a block, or passed our patience.
    """
    num_blocks, waited_s = 0, 0.0
    arguments = _arguments(output, "-nostdin")
    with _started(arguments, on_messages=on_messages, most_file_bytes=_MESSAGES_BYTES) as (process, fail):
        assert process.stdout is not None
        while True:
            block = make_block()
            limit_s, start_s = patience.left_s(num_blocks, waited_s), time.monotonic()
            with killed_after(process, limit_s) as expired:
                count = process.stdout.readinto(block)  # type: ignore[attr-defined]
                status = process.wait() if count < block.nbytes else None
            num_blocks, waited_s = num_blocks + 1, waited_s + time.monotonic() - start_s
            if expired.is_set():
                fail(waited_s)
            if status is not None:
                if status != 0 or count:
                    fail(None)
                return
            yield


class Sink:
    """A running ffmpeg that takes raw frames on standard input. `limit_s` is for one frame, and for the end."""

    def __init__(self, output: Any, limit_s: float) -> None:
        self._limit_s = limit_s
        self._context = _started(_arguments(output), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._process, self._fail = self._context.__enter__()

    def write(self, frame: memoryview) -> None:
        """Hand over one frame.

        Raises:
            FfmpegFailed: ffmpeg has ended or does not take it within the limit.
        """
        assert self._process.stdin is not None
        with killed_after(self._process, self._limit_s) as expired:
            try:
                self._process.stdin.write(frame)
            except BrokenPipeError:
                self._process.wait()
                self._fail(self._limit_s if expired.is_set() else None)

    def finish(self) -> None:
        """Close the input and wait for the file to be complete.

        Raises:
            FfmpegFailed: ffmpeg reported an error or does not end within the limit.
        """
        assert self._process.stdin is not None
        with killed_after(self._process, self._limit_s) as expired:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # the exit status says what happened
            status = self._process.wait()
        if status != 0 or expired.is_set():
            self._fail(self._limit_s if expired.is_set() else None)

    def close(self) -> None:
        """Stop ffmpeg if it still runs."""
        self._context.__exit__(None, None, None)


@contextmanager
def killed_after(process: subprocess.Popen[bytes], limit_s: float) -> Iterator[threading.Event]:
    """Kill the process when the block takes longer; the event says whether that happened."""
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(limit_s, stop)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


_Fail = Callable[[float | None], None]


@contextmanager
def _started(
    arguments: list[str],
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    on_messages: Callable[[IO[bytes]], None] | None = None,
    most_file_bytes: int | None = None,
) -> Iterator[Any]:
    """A process and a function that raises with the tail of its messages; the process never outlives the block."""
    # A file rather than a pipe: nobody has to drain it while frames are exchanged.
    with tempfile.TemporaryFile() as messages:
        # A folder of its own, which is gone once ffmpeg has started: no relative name leads to a file.
        with tempfile.TemporaryDirectory(prefix="gensync-") as folder:
            process = subprocess.Popen(arguments, stdin=stdin, stdout=stdout, stderr=messages, cwd=folder)
        _limit_resources(process.pid, most_file_bytes)

        def fail(passed_limit_s: float | None) -> None:
            raise FfmpegFailed(_explain(messages, process.returncode, passed_limit_s))

        try:
            yield process, fail
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        pass  # what was still buffered has no reader any more
            if on_messages is not None:
                messages.seek(0)
                on_messages(messages)


def _limit_resources(pid: int, most_file_bytes: int | None) -> None:
    if sys.platform != "linux":
        return
    limits = {resource.RLIMIT_DATA: _MEMORY_BYTES, resource.RLIMIT_CORE: 0}
    if most_file_bytes is not None:
        limits[resource.RLIMIT_FSIZE] = most_file_bytes
    for name, wanted in limits.items():
        try:
            _, highest = resource.prlimit(pid, name)
            limit = wanted if highest == resource.RLIM_INFINITY else min(wanted, highest)
            resource.prlimit(pid, name, (limit, limit))
        except ProcessLookupError:
            return  # it has ended


def _explain(messages: IO[bytes], status: int | None, passed_limit_s: float | None) -> str:
    messages.seek(max(messages.seek(0, os.SEEK_END) - 4 * _STDERR_TAIL_CHARACTERS, 0))
    said = " ".join(messages.read().decode(errors="replace").split())[-_STDERR_TAIL_CHARACTERS:]
    tail = "".join(character if character.isprintable() else "?" for character in said)
    if passed_limit_s is not None:
        return f"ffmpeg was stopped after {passed_limit_s:.0f} s: {tail or 'it had said nothing'}"
    return f"ffmpeg failed (exit status {status}): {tail or 'it said nothing'}"
