"""Small clips made on the spot: a grey ramp with a square whose brightness tells the frame's number."""

import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gensync_core.media.video import VideoWriter

RATE_HZ = 16_000


def _frame(index: int, width: int, height: int) -> np.ndarray:
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    image[:, :, 2] = np.linspace(20, 200, width, dtype=np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = 10 + index % 48 * 5
    return image


@pytest.fixture
def make_frame() -> Callable[[int, int, int], np.ndarray]:
    """The frame of a number, width and height."""
    return _frame


@pytest.fixture
def make_wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tone with a click every second."""

    def make(seconds: float, name: str = "tone.wav") -> Path:
        time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
        samples = 0.2 * np.sin(2 * np.pi * 220 * time_s)
        samples[np.mod(np.arange(len(samples)), RATE_HZ) < 80] = 0.9
        path = tmp_path / name
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        return path

    return make


@pytest.fixture
def make_clip(tmp_path: Path, make_wav: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a clip; `sound_s` None: without sound."""

    def make(
        name: str = "clip.mp4",
        *,
        seconds: float = 4.0,
        sound_s: float | None = 4.0,
        width: int = 160,
        height: int = 128,
        fps: float = 25,
    ) -> Path:
        path = tmp_path / name
        audio = None if sound_s is None else make_wav(sound_s)
        even = width % 2 == height % 2 == 0
        pixel_format = "yuv420p" if even else "yuv444p"
        with VideoWriter(path, width, height, fps, audio, crf=12, preset="ultrafast", pixel_format=pixel_format) as writer:
            for index in range(round(seconds * fps)):
                writer.write(_frame(index, width, height))
        return path

    return make


@pytest.fixture
def make_variable_rate_clip(tmp_path: Path, make_wav: Callable[..., Path]) -> Callable[[], Path]:
    """Writes 4 s in which frames last 20 and 60 ms by turns."""

    def make() -> Path:
        path = tmp_path / "variable.mkv"
        with av.open(str(path), "w") as container, av.open(str(make_wav(4.0))) as sound:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 160, 128, "yuv420p"
            audio = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
            for index in range(100):
                frame = av.VideoFrame.from_ndarray(_frame(index, 160, 128), format="rgb24")
                frame.pts, frame.time_base = index * 40 + index % 2 * 20, Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            for frame in sound.decode(audio=0):
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        return path

    return make


@pytest.fixture
def rotate() -> Callable[[Path], Path]:
    """Turns an MP4 by 90 degrees: writes the matrix into its track header, as a phone does."""

    def turn(path: Path) -> Path:
        content = bytearray(path.read_bytes())
        matrix = content.index(b"tkhd") + 4 + 40
        for place, value in enumerate((0, 0x10000, 0, -0x10000 & 0xFFFFFFFF, 0, 0, 0, 0, 0x40000000)):
            content[matrix + 4 * place : matrix + 4 * place + 4] = value.to_bytes(4, "big")
        path.write_bytes(content)
        return path

    return turn
