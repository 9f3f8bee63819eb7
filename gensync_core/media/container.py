"""Reads one container after the other with PyAV: a program of its own, started by `media.container_process`.

A decoder that crashes, hangs or takes all memory takes this process with it and no other. Requests and answers are JSON, one
a line: `{"path": ..., "what": "facts" | "size" | "sound", "options": {...}, "max_pixels": N}` gives `{"found": {...}}`,
`{"refused": reason}` where a limit is passed, or `{"unreadable": reason}`. `media.probe` says what the facts are.
"""

import json
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any

# An hour of 60 pictures and 50 blocks of sound a second has 400 000.
_MAX_PACKETS = 2_000_000
_MEMORY_BYTES = 1 << 30
_OPENING_LIMIT_S = 20.0

_STEADY_TOLERANCE = 0.25
_MAX_UNSTEADY_SHARE = 0.01
_ATTACHED_PICTURE = "attached_pic"
_UNSPECIFIED = "unspecified"
# Numbers of ITU-T H.273; the last two transfers are the HDR curves PQ and HLG.
_MATRICES = {0: "rgb", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
_TRANSFERS = {
    1: "bt709",
    6: "smpte170m",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    18: "arib-std-b67",
}


class Refused(Exception):
    """A file that passes a limit; the message says which."""


@dataclass(frozen=True, slots=True)
class _Shape:
    width: int
    height: int
    rotation_deg: int
    square_pixels: bool
    first_frame_s: float | None


@dataclass(frozen=True, slots=True)
class _Packets:
    """Presentation times of one stream in order, without packets that are only there for the decoder."""

    times_s: list[float]
    last_duration_s: float = 0.0

    @property
    def count(self) -> int:
        return len(self.times_s)

    @property
    def start_s(self) -> float:
        return self.times_s[0] if self.times_s else 0.0

    @property
    def last_s(self) -> float:
        return self.times_s[-1] if self.times_s else 0.0

    @property
    def end_s(self) -> float:
        return self.last_s + self.last_duration_s

    @property
    def interval_s(self) -> float:
        return statistics.median(self._intervals()) if self.count > 1 else 0.0

    @property
    def mean_interval_s(self) -> float:
        return (self.last_s - self.start_s) / (self.count - 1) if self.count > 1 else 0.0

    @property
    def unsteady_share(self) -> float:
        intervals, median = self._intervals(), self.interval_s
        return sum(abs(one - median) > _STEADY_TOLERANCE * median for one in intervals) / len(intervals) if intervals else 0.0

    def _intervals(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times_s, self.times_s[1:], strict=False)]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a request asks for; whatever a file makes PyAV raise is a reason not to take the file."""
    read = {"facts": _facts, "size": _size, "sound": _sound}[request["what"]]
    try:
        return {"found": read(request)}
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"unreadable": f"{type(error).__name__}: {error}"}


def _facts(request: dict[str, Any]) -> dict[str, Any]:
    import av

    with _opened(request) as container:
        shape = _shape(container, request["max_pixels"])
    with _opened(request) as container:
        video, audio = _video_stream(container), next(iter(container.streams.audio), None)
        _check_size(video, shape)
        promised_frames = _promised_frames(container, video)
        promised_s = (container.duration or 0) / av.time_base
        start_s = (container.start_time or 0) / av.time_base
        packets = _packets(container)
        pictures = packets.get(video.index, _Packets([])) if video else _Packets([])
        sound = packets.get(audio.index, _Packets([])) if audio else _Packets([])
        interval_s = pictures.interval_s or (float(1 / video.guessed_rate) if video and video.guessed_rate else 0.0)
        first_s = shape.first_frame_s if shape.first_frame_s is not None else pictures.start_s
        video_end_s = max(pictures.last_s + interval_s, first_s) if pictures.times_s else first_s
        audio_start_s = max(sound.start_s, 0.0)
        audio_end_s = max(sound.end_s, audio_start_s)
        context = video.codec_context if video else None
        return {
            "width": shape.width,
            "height": shape.height,
            "fps": float(video.guessed_rate or video.average_rate or 0) if video else 0.0,
            "avg_fps": 1 / pictures.mean_interval_s if pictures.mean_interval_s else 0.0,
            "num_frames": pictures.count,
            "duration_s": max(video_end_s - first_s, audio_end_s - audio_start_s),
            "rotation_deg": shape.rotation_deg,
            "square_pixels": shape.square_pixels,
            "has_video": pictures.count > 0,
            "has_audio": sound.count > 0,
            "video_start_s": first_s,
            "video_duration_s": video_end_s - first_s,
            "audio_start_s": audio_start_s,
            "audio_duration_s": audio_end_s - audio_start_s,
            "variable_rate": pictures.unsteady_share > _MAX_UNSTEADY_SHARE,
            "codec": context.name if context else "",
            "pix_fmt": (context.pix_fmt or "") if context else "",
            "color_transfer": _TRANSFERS.get(int(context.color_trc), _UNSPECIFIED) if context else _UNSPECIFIED,
            "color_matrix": _MATRICES.get(int(context.colorspace), _UNSPECIFIED) if context else _UNSPECIFIED,
            "container": container.format.name,
            "promised_frames": promised_frames,
            "promised_s": promised_s,
            "reached_s": max((stream.end_s for stream in packets.values()), default=start_s) - start_s,
        }


def _size(request: dict[str, Any]) -> dict[str, Any]:
    with _opened(request) as container:
        shape = _shape(container, request["max_pixels"])
        _check_size(_video_stream(container), shape)
    return {"width": shape.width, "height": shape.height, "square_pixels": shape.square_pixels}


def _sound(request: dict[str, Any]) -> dict[str, Any]:
    with _opened(request) as container:
        for stream in container.streams.audio:
            rate_hz, num_channels = stream.codec_context.sample_rate, stream.codec_context.channels
            if rate_hz > 0 and num_channels > 0:
                return {"rate_hz": rate_hz, "num_channels": num_channels}
    return {"rate_hz": 0, "num_channels": 0}


@contextmanager
def _opened(request: dict[str, Any]) -> Iterator[Any]:
    import av

    limits_s = (_OPENING_LIMIT_S, _OPENING_LIMIT_S)
    # Titles are in whatever encoding somebody's camera used.
    with av.open(request["path"], options=request["options"], metadata_errors="replace", timeout=limits_s) as container:
        if len(container.streams) == 0:
            raise ValueError("holds no stream")
        yield container


def _video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if _ATTACHED_PICTURE not in str(stream.disposition).lower():
            return stream
    return None


def _shape(container: Any, max_pixels: int) -> _Shape:
    import av.error

    video = _video_stream(container)
    if video is None:
        return _Shape(0, 0, 0, True, None)
    width, height = video.codec_context.width, video.codec_context.height
    aspect = Fraction(video.sample_aspect_ratio or 1)
    square = aspect == 1 or aspect <= 0
    if not square:
        width = round(width * aspect)
    rotation_deg, first_frame_s = 0, None
    if 0 < width * height <= max_pixels:  # a larger frame is refused undecoded
        # The options of the container do not reach its decoders, and pictures may be larger than the header says.
        video.codec_context.options = {"max_pixels": str(max_pixels)}
        video.codec_context.thread_count = 1  # each thread holds pictures
        try:
            frame = next(container.decode(video), None)
        except (av.error.FFmpegError, OSError):
            frame = None
        if frame is not None:
            rotation_deg = round(frame.rotation)
            first_frame_s = None if frame.pts is None else float(frame.pts * frame.time_base)
    if rotation_deg % 180 == 90:
        width, height = height, width
    return _Shape(width, height, rotation_deg, square, first_frame_s)


def _check_size(video: Any, shape: _Shape) -> None:
    # FFmpeg forgets the size of pictures that it will not decode.
    if video is not None and min(shape.width, shape.height) <= 0:
        raise Refused("its pictures are larger than is decoded, or damaged; convert it to MP4 with H.264, 3840x2160 at most")


def _promised_frames(container: Any, video: Any) -> int:
    if video is None:
        return 0
    # The header of an MP4 that was trimmed without encoding still counts what the edit list hides; its index does not.
    return len(video.index_entries) if "mov" in container.format.name else video.frames


def _packets(container: Any) -> dict[int, _Packets]:
    import av.error

    times: dict[int, list[float]] = {}
    durations: dict[int, float] = {}
    try:
        for number, packet in enumerate(container.demux()):
            if number >= _MAX_PACKETS:
                raise Refused(f"holds more than {_MAX_PACKETS} packets; cut a part of it")
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None or packet.size == 0 or packet.is_discard:
                continue
            times.setdefault(packet.stream_index, []).append(float(time * packet.time_base))
            durations[packet.stream_index] = float((packet.duration or 0) * packet.time_base)
    except (av.error.FFmpegError, OSError):
        pass  # a damaged end: what was promised and not found shows it
    return {index: _Packets(sorted(found), durations[index]) for index, found in times.items()}


def shut_in() -> None:
    """No more memory than any fit footage needs, no file to write, no core dump, and no folder to start from."""
    folder = tempfile.mkdtemp(prefix="gensync-")
    os.chdir(folder)
    os.rmdir(folder)
    wanted = {"RLIMIT_DATA": _MEMORY_BYTES, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, limit in wanted.items():
        try:
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (AttributeError, ValueError, OSError):
            pass  # not on this system; the wall-clock limit holds everywhere


def main(requests: IO[str], answers: IO[str]) -> None:
    """Say that all is ready, then answer requests until there are no more."""
    import av.error  # noqa: F401  (before there is no folder any more)

    shut_in()
    answers.write("ready\n")
    answers.flush()
    for line in requests:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
