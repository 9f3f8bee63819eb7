"""Files from strangers: no entry reads a neighbour or calls a server, and all refuse in words of ours."""

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_up_footage
import numpy as np
import pytest
import traps

from gensync_core.audio.waveform import load_waveform
from gensync_core.errors import FootageRejected, GenSyncError
from gensync_core.footage.gate import check_footage
from gensync_core.footage.gate_params import GateParams
from gensync_core.footage.sound_scan import scan_sound
from gensync_core.media import ffmpeg_command
from gensync_core.media.clip_cutting import IngestParams, Span, SquareCrop, cut_clip
from gensync_core.media.frames import FrameStore
from gensync_core.media.picture_tiles import DecodingLog, iter_tiles
from gensync_core.media.probe import Probe, display_size, probe, sound_format
from gensync_core.media.sound import iter_sound
from gensync_core.media.stretch import Stretch, View, stretch_frames, stretch_sound
from gensync_core.media.video import VideoWriter, convert_audio, iter_clip, iter_frames, iter_labels

Entry = Callable[[Path, Probe, Path], Any]

SPAN, STRETCH, VIEW, CROP = Span(0.0, 1.0), Stretch(0.0, 10), View(0, 0, 64, 64, 64, 64), SquareCrop(0, 0, 64)
KINDS = list(traps.scripts("", ""))


def tiles(path: Path, found: Probe, out: Path) -> None:
    log = DecodingLog(0.04)
    assert list(iter_tiles(path, found, CROP, 5, log)) == []
    assert log.failed
    raise FootageRejected("said by the picture checks")


def gate(path: Path, found: Probe, out: Path) -> None:
    check_footage(path, GateParams(), made_up_footage.senses(lambda frame: [])).raise_if_rejected()


def ffmpeg_alone(path: Path, found: Probe, out: Path) -> None:
    """Not through PyAV, whose refusal would hide whether ffmpeg refuses as well."""
    stream = ffmpeg_command.to_pipe(ffmpeg_command.video_input(path), format="rawvideo")
    ffmpeg_command.read_all(stream, 30.0, 1_000_000)


def writer(path: Path, found: Probe, out: Path) -> None:
    with VideoWriter(out / "spoken.mp4", 64, 64, 25, path) as video:
        for _ in range(100):
            video.write(made_up_frame())


def made_up_frame() -> Any:
    return np.zeros((64, 64, 3), dtype=np.uint8)


# Everything that opens a file that somebody gave us. `found` is what a neighbour holds, so that nothing is refused before
# the decoder has it.
ENTRIES: dict[str, Entry] = {
    "probe": lambda path, found, out: probe(path),
    "display_size": lambda path, found, out: display_size(path),
    "sound_format": lambda path, found, out: sound_format(path),
    "gate": gate,
    "iter_frames": lambda path, found, out: list(iter_frames(path)),
    "iter_clip": lambda path, found, out: list(iter_clip(path)),
    "iter_labels": lambda path, found, out: list(iter_labels(path)),
    "frame store": lambda path, found, out: FrameStore.open(path, out),
    "ffmpeg alone": ffmpeg_alone,
    "tiles": tiles,
    "stretch_frames": lambda path, found, out: list(stretch_frames(path, found, STRETCH, VIEW)),
    "stretch_sound": lambda path, found, out: stretch_sound(path, found, STRETCH),
    "iter_sound": lambda path, found, out: list(iter_sound(path, SPAN)),
    "scan_sound": lambda path, found, out: scan_sound(path, found),
    "cut_clip": lambda path, found, out: cut_clip(
        path, found, CROP, IngestParams(resolution=64), clip=out / "a.mp4", wav=out / "a.wav"
    ),
    "convert_audio": lambda path, found, out: convert_audio(path, out / "a.wav"),
    "speech": lambda path, found, out: load_waveform(path),
    "sound of a video": writer,
}


@pytest.fixture
def home(make_clip: Callable[..., Path], tmp_path: Path) -> Path:
    make_clip("neighbour.mp4", seconds=1, sound_s=1.0)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    with traps.listening() as address_and_connections:
        yield address_and_connections


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_script_leads_an_entry_elsewhere(entry: str, home: Path, server: tuple[str, list[str]]) -> None:
    url, connections = server
    found = probe(home / "neighbour.mp4")
    scripts = traps.scripts("neighbour.mp4", url)
    chosen = (
        scripts
        if entry in {"probe", "ffmpeg alone"}
        else {kind: scripts[kind] for kind in ("concat", "hls", "hls of a server")}
    )
    for kind, script in chosen.items():
        trap = home / "trap.mp4"
        trap.write_text(script)
        start = time.monotonic()
        with pytest.raises(GenSyncError):
            ENTRIES[entry](trap, found, home / "out")
            pytest.fail(kind)
        assert time.monotonic() - start < 20, kind
    assert connections == []
    assert [path for path in (home / "out").rglob("*") if path.is_file() and path.name not in ("a.mp4", "a.wav")] == []


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_no_script_is_speech(suffix: str, home: Path, server: tuple[str, list[str]]) -> None:
    for kind, script in traps.scripts("neighbour.mp4", server[0]).items():
        trap = home / f"trap{suffix}"
        trap.write_text(script)
        with pytest.raises(FootageRejected, match=r"trap"):
            load_waveform(trap)
            pytest.fail(kind)
    assert server[1] == []


def test_the_traps_would_work(home: Path, server: tuple[str, list[str]]) -> None:
    """Without our limits ffmpeg reads the neighbour, and asks the server: what the tests above guard is real."""
    url, connections = server
    scripts = traps.scripts("neighbour.mp4", url)
    trap = home / "trap.mp4"

    def decode() -> bytes:
        command = [
            ffmpeg_command.ffmpeg_binary(),
            "-nostdin",
            "-loglevel",
            "quiet",
            "-i",
            str(trap),
            "-f",
            "rawvideo",
            "pipe:1",
        ]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).stdout

    trap.write_text(scripts["concat"])
    assert len(decode()) > 160 * 128
    command = [ffmpeg_command.ffmpeg_binary(), "-nostdin", "-loglevel", "quiet", "-i", url, "-f", "null", "-"]
    subprocess.run(command, check=False, timeout=60)
    assert connections


@pytest.mark.parametrize(
    "name", ["concat:neighbour.mp4|neighbour.mp4", "subfile,,start,0,end,0,,:neighbour.mp4", "pipe:0", "data:a", "-i.mp4"]
)
def test_a_name_is_only_ever_the_name_of_a_file(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    with pytest.raises(FootageRejected, match="no such file"):
        probe(Path(name))
    for call in (
        lambda: list(iter_frames(Path(name))),
        lambda: ffmpeg_command.video_input(Path(name)),
        lambda: load_waveform(Path(name)),
    ):
        with pytest.raises(FootageRejected, match="no such file"):
            call()
    Path(name).write_bytes((home / "neighbour.mp4").read_bytes())
    assert probe(Path(name)).num_frames == 25
    assert len(list(iter_frames(Path(name)))) == 25


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "a\0b", tmp_path / "missing.mp4"):
        with pytest.raises(FootageRejected):
            probe(path)
        with pytest.raises((FootageRejected, ValueError)):
            load_waveform(path)


def test_a_decoder_that_repeats_pictures_for_ever_does_not_hold_the_gate(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = itertools.repeat(made_up_frame())
    monkeypatch.setattr("gensync_core.footage.gate.iter_frames", lambda *_, **__: frames)
    report = check_footage(home / "neighbour.mp4", GateParams(min_seconds=1), made_up_footage.senses(lambda frame: []))
    assert len(report.samples) <= 4
    assert "no_face" in report.codes()


def test_footage_without_any_face_is_refused_however_few_are_asked_for(home: Path) -> None:
    """Nothing could be cropped."""
    params = GateParams(min_seconds=1, max_without_face=1.0)
    assert check_footage(home / "neighbour.mp4", params, made_up_footage.senses(lambda frame: [])).rejected
