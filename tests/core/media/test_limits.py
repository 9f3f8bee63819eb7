"""What runs on a stranger's file is stopped in time, has no room for mischief, and is replaced after a crash."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gensync_core.errors import GenSyncError
from gensync_core.media import container, container_process, ffmpeg_command
from gensync_core.media.ffmpeg_command import FfmpegFailed, Patience, work_s
from gensync_core.media.probe import Unreadable, probe
from gensync_core.media.video import iter_frames

Fake = Callable[[str], Any]


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_clip: Callable[..., Path]) -> Fake:
    """Puts a piece of Python in ffmpeg's place; gives an output to run it with."""
    clip = make_clip(seconds=0.4)

    def put(code: str) -> Any:
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!{sys.executable}\nimport os, resource, signal, sys, time\n{code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("GENSYNC_FFMPEG", str(program))
        return ffmpeg_command.to_pipe(ffmpeg_command.video_input(clip), format="rawvideo")

    return put


def block() -> memoryview:
    return memoryview(bytearray(4))


def test_a_scan_that_goes_on_for_ever_is_stopped_though_each_block_comes_soon(fake_ffmpeg: Fake) -> None:
    output = fake_ffmpeg(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True:\n    sys.stdout.write('four')\n    sys.stdout.flush()\n    time.sleep(0.1)"
    )
    start = time.monotonic()
    with pytest.raises(FfmpegFailed, match="stopped after"):
        for _ in ffmpeg_command.read_blocks(output, block, Patience(0.01, 1.0)):
            pass
    assert 0.9 < time.monotonic() - start < 10


def test_time_that_we_take_ourselves_does_not_count(fake_ffmpeg: Fake) -> None:
    output = fake_ffmpeg("sys.stdout.write('four' * 5)")
    num_blocks = 0
    for _ in ffmpeg_command.read_blocks(output, block, Patience(0.01, 1.5)):
        time.sleep(0.5)
        num_blocks += 1
    assert num_blocks == 5


def test_an_ffmpeg_that_says_all_and_does_not_end_is_stopped(fake_ffmpeg: Fake) -> None:
    output = fake_ffmpeg("sys.stdout.write('four')\nsys.stdout.flush()\nos.close(1)\ntime.sleep(60)")
    with pytest.raises(FfmpegFailed, match="stopped"):
        list(ffmpeg_command.read_blocks(output, block, Patience(0.01, 1.0)))


def test_patience_grows_with_the_blocks_and_never_exceeds_that_for_one() -> None:
    patience = Patience(0.5, 10.0)
    assert patience.left_s(0, 0.0) == 10.5
    assert patience.left_s(100, 0.0) == 10.5
    assert patience.left_s(100, 55.5) == 5.0
    assert patience.left_s(100, 99.0) == 0.0


def test_the_limit_of_long_footage_is_longer_and_within_reason() -> None:
    assert work_s(512, 512, 600) == pytest.approx(2 * work_s(512, 512, 300))
    assert 600 < work_s(512, 512, 600) < 1800  # ten minutes may take half an hour
    assert work_s(3840, 2160, 60) > 10 * work_s(512, 512, 60)


def test_no_more_is_read_than_is_wanted(fake_ffmpeg: Fake) -> None:
    output = fake_ffmpeg("while True:\n    sys.stdout.write('x' * 4096)")
    assert len(ffmpeg_command.read_all(output, 20.0, 100_000)) == 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")
def test_ffmpeg_has_limits_and_a_folder_that_is_gone(fake_ffmpeg: Fake) -> None:
    output = fake_ffmpeg(
        "time.sleep(0.3)\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA)[0], resource.getrlimit(resource.RLIMIT_CORE)[0],"
        " resource.getrlimit(resource.RLIMIT_FSIZE)[0], sys.stdin.read() == '')\n"
        "try:\n    open('stray', 'w')\nexcept OSError as error:\n    print(type(error).__name__)"
    )
    said = ffmpeg_command.read_all(output, 20.0, 1000).decode().split()
    assert said == [str(4 << 30), "0", str(256 << 20), "True", "FileNotFoundError"]


def test_what_ffmpeg_says_cannot_write_to_the_terminal(fake_ffmpeg: Fake) -> None:
    output = fake_ffmpeg(r"sys.stderr.write('x' * 100000 + ' \x1b[31mred\nerror[0]: fine'); sys.exit(1)")
    with pytest.raises(FfmpegFailed) as caught:
        ffmpeg_command.read_all(output, 20.0, 1000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def stand_in(monkeypatch: pytest.MonkeyPatch, path: Path, code: str) -> None:
    """A program in place of the one that reads containers."""
    path.write_text(f"import os, sys, time\nprint('ready', flush=True)\nline = sys.stdin.readline()\n{code}\n")
    monkeypatch.setattr(container, "__file__", str(path))
    container_process._reader.end()


@pytest.mark.parametrize(
    ("code", "said"), [("os.kill(os.getpid(), 11)", "crash"), ("time.sleep(60)", "within 1 s"), ("print('{', end='')", "crash")]
)
def test_a_crash_or_a_stop_of_the_reader_is_said_of_the_file(
    code: str, said: str, make_clip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(seconds=0.4)
    with monkeypatch.context() as patch:
        patch.setattr("gensync_core.media.probe._LIMIT_AT_LEAST_S", 1.0)
        stand_in(patch, tmp_path / "program.py", code)
        with pytest.raises(Unreadable, match=f"clip.mp4: .*{said}"):
            probe(clip)
    assert probe(clip).num_frames == 10


def test_a_reader_that_does_not_start_is_not_the_files_fault(
    make_clip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(seconds=0.4)
    container_process._reader.end()
    (tmp_path / "program.py").write_text("raise SystemExit(1)")
    monkeypatch.setattr(container, "__file__", str(tmp_path / "program.py"))
    with pytest.raises(GenSyncError, match="PyAV") as caught:
        probe(clip)
    assert not isinstance(caught.value, Unreadable)


def test_the_reader_lives_on_between_files_and_ends_with_us(make_clip: Callable[..., Path]) -> None:
    clip = make_clip(seconds=0.4)
    probe(clip)
    process = container_process._reader._process
    assert process is not None
    probe(clip)
    assert container_process._reader._process is process
    container_process._reader.end()
    assert process.poll() is not None


def test_a_reader_started_ahead_is_the_one_that_answers_and_is_replaced_if_it_died(make_clip: Callable[..., Path]) -> None:
    clip = make_clip(seconds=0.4)
    for dies in (False, True):
        container_process._reader.end()
        container_process.start_ahead()
        process = container_process._reader._process
        assert process is not None
        if dies:
            process.kill()
            process.wait()
        assert probe(clip).num_frames == 10
        assert (container_process._reader._process is process) == (not dies)


def test_a_fork_has_a_reader_of_its_own(make_clip: Callable[..., Path]) -> None:
    clip = make_clip(seconds=0.4)
    probe(clip)
    parents = container_process._reader._process
    assert parents is not None
    child = os.fork()
    if child == 0:
        try:
            status = 0 if probe(clip).num_frames == 10 else 1
            container_process._reader.end()
        except BaseException:
            status = 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert parents.poll() is None
    assert probe(clip).num_frames == 10


def test_stopping_in_the_middle_leaves_no_ffmpeg(make_clip: Callable[..., Path]) -> None:
    frames = iter_frames(make_clip(seconds=2))
    next(frames)
    frames.close()
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("this system does not say")
    names = [Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0] for pid in children.read_text().split()]
    assert not [name for name in names if "ffmpeg" in name]
