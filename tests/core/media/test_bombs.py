"""Small files that would take hours or gigabytes: refused at once, by what they would show, hold, or cost."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import made_up_footage
import numpy as np
import pytest
import soundfile
import traps

from gensync_core.audio import waveform
from gensync_core.audio.waveform import load_waveform
from gensync_core.errors import FootageRejected
from gensync_core.footage.gate import check_footage
from gensync_core.footage.gate_params import GateParams
from gensync_core.footage.gate_report import GateReport
from gensync_core.media import container, container_process, ffmpeg_command
from gensync_core.media.ffmpeg_command import FfmpegFailed
from gensync_core.media.probe import Unreadable, display_size, probe
from gensync_core.media.video import iter_frames

AT_ONCE_S = 4.0  # on a loaded machine; alone, each is refused in well under a second

BOMBS = {
    # 134 megapixels each, a hundred times: 13 gigapixels in 20 kB.
    "gigantic pictures": lambda: traps.mp4(traps.gigantic_png(), chunks=100, width=16384, height=8192),
    "gigantic pictures behind a small header": lambda: traps.mp4(traps.gigantic_png(), chunks=100),
    "gigantic header": lambda: traps.mp4(width=65535, height=65535, chunks=100),
    # An index of 2 GB in a file of 1 kB.
    "gigantic index": lambda: traps.mp4(samples=80_000_000, sample_bytes=1),
    "large index": lambda: traps.mp4(samples=40_000_000, sample_bytes=1),
    "days": lambda: traps.mp4(chunks=100, delta=2**31 - 1, rate=1),
    "a thousand streams": lambda: traps.mp4(tracks=1000),
}


def checked(path: Path) -> GateReport:
    return check_footage(path, GateParams(), made_up_footage.senses(lambda frame: []))


@pytest.fixture(autouse=True)
def running_reader(make_clip: Callable[..., Path]) -> None:
    """Starting PyAV's process is not part of what a bomb costs."""
    probe(make_clip("small.mp4", seconds=0.4, sound_s=None))


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_at_once(bomb: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.mp4"
    path.write_bytes(BOMBS[bomb]())
    assert path.stat().st_size < 1_000_000
    start = time.monotonic()
    report = checked(path)
    assert time.monotonic() - start < AT_ONCE_S
    assert report.rejected
    for frame in frames_of(path):
        assert frame.size < 3 * ffmpeg_command.MAX_PIXELS
    assert time.monotonic() - start < 3 * AT_ONCE_S
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1_500_000  # kB, of ffmpeg


def frames_of(path: Path) -> list[np.ndarray]:
    try:
        return list(iter_frames(path))
    except FootageRejected:
        return []


def test_gigantic_pictures_are_refused_for_their_size(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mp4"
    path.write_bytes(BOMBS["gigantic pictures"]())
    assert "larger than is decoded" in checked(path).findings[0].message
    with pytest.raises(Unreadable, match="larger than is decoded"):
        display_size(path)


def test_what_a_pixel_is_said_to_be_wide_counts(make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures are scaled to gigantic ones where the file says that its pixels are very wide."""
    monkeypatch.setattr(
        "gensync_core.media.probe.read_container", lambda *_: {"found": {"width": 10**6, "height": 128, "square_pixels": False}}
    )
    with pytest.raises(Unreadable, match="1000000x128"):
        list(iter_frames(make_clip(seconds=0.4)))


def test_packets_are_counted_up_to_a_limit(make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    request = {"path": str(make_clip(seconds=1)), "what": "facts", "options": {}, "max_pixels": ffmpeg_command.MAX_PIXELS}
    assert container.answer(request)["found"]["num_frames"] == 25
    monkeypatch.setattr(container, "_MAX_PACKETS", 20)
    assert "more than 20 packets" in container.answer(request)["refused"]


def test_memory_of_the_reader_is_capped(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mp4"
    path.write_bytes(BOMBS["large index"]())
    try:
        probe(path)
    except Unreadable:
        pass
    process = container_process._reader._process
    assert process is not None
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("this system does not say what a process holds")
    peak_kb = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert peak_kb < 1_200_000


def test_memory_of_ffmpeg_is_capped(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mp4"
    path.write_bytes(BOMBS["gigantic index"]())
    output = ffmpeg_command.to_pipe(ffmpeg_command.video_input(path), format="rawvideo")
    with pytest.raises(FfmpegFailed):
        ffmpeg_command.read_all(output, 30.0, 1000)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1_500_000


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [(24, 2**31 - 1, "2147483647 samples a second"), (24, 1, "1 samples a second"), (22, 1024, "1024 channels")],
)
def test_sound_of_absurd_rates_is_refused(place: int, value: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    content = bytearray(path.read_bytes())
    size = 2 if place == 22 else 4
    content[place : place + size] = value.to_bytes(size, "little")
    path.write_bytes(content)
    with pytest.raises(FootageRejected, match=said):
        load_waveform(path)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_speech_of_days_is_refused(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waveform, "MAX_SPEECH_S", 3.0)
    path = tmp_path / f"long{suffix}"
    soundfile.write(path, np.zeros(16_000 * 8), 16_000)
    with pytest.raises(FootageRejected, match=f"long{suffix}: lasts more than"):
        load_waveform(path)
