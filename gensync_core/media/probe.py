"""What a media file holds, counted packet by packet: headers of cut or damaged files promise more than there is."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error

from gensync_core.errors import FootageRejected
from gensync_core.media.ffmpeg_command import MAX_PIXELS, file_url, input_limits

_STEADY_TOLERANCE = 0.25
_MAX_UNSTEADY_SHARE = 0.01
_ATTACHED_PICTURE = "attached_pic"
_UNKNOWN_TRANSFER = "unspecified"
# Numbers of ITU-T H.273; the last two are the HDR curves PQ and HLG.
_TRANSFERS = {
    1: "bt709",
    6: "smpte170m",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    18: "arib-std-b67",
}


class Unreadable(FootageRejected):
    """A file that cannot be opened as video or sound; `truncated` where it begins like one but has lost its end."""

    def __init__(self, message: str, *, truncated: bool = False) -> None:
        super().__init__(message)
        self.truncated = truncated


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Facts about a media file. Times are seconds on the file's own clock.

    Attributes:
        width: of the picture as it is to be shown: rotated, with square pixels.
        height: likewise.
        fps: nominal frame rate, 0 without video.
        avg_fps: frames shown per second of video.
        num_frames: video packets found.
        duration_s: of the longer stream.
        rotation_deg: turn, counter-clockwise, that the file asks for.
        square_pixels: whether the stored pixels are square.
        has_video: at least one packet of pictures, cover art aside.
        has_audio: at least one packet of sound.
        video_start_s: time of the first picture.
        video_duration_s: from the first picture to the end of the last.
        audio_start_s: time of the first sound.
        audio_duration_s: likewise for sound.
        variable_rate: whether more than 1% of the intervals between frames differ by a quarter from the median.
        codec: of the video.
        pix_fmt: of the video, as stored.
        color_transfer: transfer characteristic of the video, for example `bt709`, `smpte2084` (HDR), `unspecified`.
        container: name of the demuxer.
        promised_frames: number of video frames according to the file's index or header; 0: it does not say.
        promised_s: end of the file according to its header; 0: it does not say.
        reached_s: end of the last packet of any stream, counted from the file's start.
    """

    width: int
    height: int
    fps: float
    avg_fps: float
    num_frames: int
    duration_s: float
    rotation_deg: int
    square_pixels: bool
    has_video: bool
    has_audio: bool
    video_start_s: float
    video_duration_s: float
    audio_start_s: float
    audio_duration_s: float
    variable_rate: bool
    codec: str
    pix_fmt: str
    color_transfer: str
    container: str
    promised_frames: int
    promised_s: float
    reached_s: float

    @property
    def video_end_s(self) -> float:
        """End of the last picture."""
        return self.video_start_s + self.video_duration_s

    @property
    def audio_end_s(self) -> float:
        """End of the last sound."""
        return self.audio_start_s + self.audio_duration_s


def probe(path: Path) -> Probe:
    """Read every packet of a file, and decode one frame.

    Raises:
        Unreadable: the file is missing, empty, or not a video or sound of a known kind.
    """
    with _opened(path) as container:
        shape = _shape(container)
    with _opened(path) as container:
        video, audio = _video_stream(container), next(iter(container.streams.audio), None)
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
        return Probe(
            width=shape.width,
            height=shape.height,
            fps=float(video.guessed_rate or video.average_rate or 0) if video else 0.0,
            avg_fps=1 / pictures.mean_interval_s if pictures.mean_interval_s else 0.0,
            num_frames=pictures.count,
            duration_s=max(video_end_s - first_s, audio_end_s - audio_start_s),
            rotation_deg=shape.rotation_deg,
            square_pixels=shape.square_pixels,
            has_video=pictures.count > 0,
            has_audio=sound.count > 0,
            video_start_s=first_s,
            video_duration_s=video_end_s - first_s,
            audio_start_s=audio_start_s,
            audio_duration_s=audio_end_s - audio_start_s,
            variable_rate=pictures.unsteady_share > _MAX_UNSTEADY_SHARE,
            codec=context.name if context else "",
            pix_fmt=(context.pix_fmt or "") if context else "",
            color_transfer=_TRANSFERS.get(int(context.color_trc or 0), _UNKNOWN_TRANSFER) if context else _UNKNOWN_TRANSFER,
            container=container.format.name,
            promised_frames=promised_frames,
            promised_s=promised_s,
            reached_s=max((stream.end_s for stream in packets.values()), default=start_s) - start_s,
        )


def display_size(path: Path) -> tuple[int, int, bool]:
    """Width and height in px as shown, and whether the stored pixels are square; reads only the file's beginning.

    Raises:
        Unreadable: the file cannot be opened or holds no video.
    """
    with _opened(path) as container:
        shape = _shape(container)
    if shape.width == 0:
        raise Unreadable(f"{path}: holds no video")
    return shape.width, shape.height, shape.square_pixels


class SoundFormat(NamedTuple):
    """Samples a second of each channel, and how many channels."""

    rate_hz: int
    num_channels: int


def sound_format(path: Path) -> SoundFormat:
    """How the first sound track is stored; reads only the file's beginning.

    Raises:
        Unreadable: the file cannot be opened or holds no readable sound.
    """
    with _opened(path) as container:
        for stream in container.streams.audio:
            stored = SoundFormat(stream.codec_context.sample_rate, stream.codec_context.channels)
            if min(stored) > 0:
                return stored
    raise Unreadable(f"{path}: holds no sound that can be read")


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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Unreadable(f"{path}: no such file") from error
    if size == 0:
        raise Unreadable(f"{path}: the file is empty; copy or export it again")
    try:
        container = av.open(file_url(path), options={**input_limits(), "max_pixels": str(MAX_PIXELS)})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path) from error
    with container:
        if len(container.streams) == 0:
            raise _unreadable(path)
        yield container


def _unreadable(path: Path) -> Unreadable:
    if _begins_like_mp4(path):
        message = f"{path}: the file begins like a video but is cut off or damaged; copy or export it again"
        return Unreadable(message, truncated=True)
    return Unreadable(f"{path}: not a video that can be read (known: MP4, MOV, MKV, WebM, AVI, MPEG); convert it to MP4")


def _begins_like_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if _ATTACHED_PICTURE not in str(stream.disposition).lower():
            return stream
    return None


def _shape(container: Any) -> _Shape:
    video = _video_stream(container)
    if video is None:
        return _Shape(0, 0, 0, True, None)
    width, height = video.codec_context.width, video.codec_context.height
    aspect = Fraction(video.sample_aspect_ratio or 1)
    square = aspect == 1 or aspect <= 0
    if not square:
        width = round(width * aspect)
    rotation_deg, first_frame_s = 0, None
    if 0 < width * height <= MAX_PIXELS:  # a larger frame is refused undecoded
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


def _promised_frames(container: Any, video: Any) -> int:
    if video is None:
        return 0
    # The header of an MP4 that was trimmed without encoding still counts what the edit list hides; its index does not.
    return len(video.index_entries) if "mov" in container.format.name else video.frames


def _packets(container: Any) -> dict[int, _Packets]:
    times: dict[int, list[float]] = {}
    durations: dict[int, float] = {}
    try:
        for packet in container.demux():
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None or packet.size == 0 or packet.is_discard:
                continue
            times.setdefault(packet.stream_index, []).append(float(time * packet.time_base))
            durations[packet.stream_index] = float((packet.duration or 0) * packet.time_base)
    except (av.error.FFmpegError, OSError):
        pass  # a damaged end: what was promised and not found shows it
    return {index: _Packets(sorted(found), durations[index]) for index, found in times.items()}
