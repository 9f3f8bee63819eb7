"""What a media file holds, counted packet by packet: headers of cut or damaged files promise more than there is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gensync_core.errors import FootageRejected
from gensync_core.media.container_process import ReaderFailed, read_container
from gensync_core.media.ffmpeg_command import MAX_PIXELS, file_url, input_limits

_LIMIT_AT_LEAST_S = 30.0
_BYTES_PER_SECOND = 20e6


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
        color_matrix: how its luma and chroma were made of RGB, likewise; `rgb`: they were not.
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
    color_matrix: str
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
        Unreadable: the file is missing, empty, not a video or sound of a known kind, or more than is taken.
    """
    return Probe(**_read(path, "facts"))


def display_size(path: Path) -> tuple[int, int, bool]:
    """Width and height in px as shown, and whether the stored pixels are square; reads only the file's beginning.

    Raises:
        Unreadable: the file cannot be opened, holds no video, or shows more than `MAX_PIXELS`.
    """
    found = _read(path, "size")
    width, height = found["width"], found["height"]
    if width <= 0 or height <= 0:
        raise Unreadable(f"{path}: holds no video")
    if width * height > MAX_PIXELS:
        raise Unreadable(f"{path}: shows {width}x{height} px, more than is decoded; scale it down to 3840x2160 or less")
    return width, height, found["square_pixels"]


class SoundFormat(NamedTuple):
    """Samples a second of each channel, and how many channels."""

    rate_hz: int
    num_channels: int


def sound_format(path: Path) -> SoundFormat:
    """How the first sound track is stored; reads only the file's beginning.

    Raises:
        Unreadable: the file cannot be opened or holds no readable sound.
    """
    stored = SoundFormat(**_read(path, "sound"))
    if min(stored) <= 0:
        raise Unreadable(f"{path}: holds no sound that can be read; give a recording in which somebody speaks")
    return stored


def _read(path: Path, what: Literal["facts", "size", "sound"]) -> dict[str, Any]:
    try:
        is_file, size = path.is_file(), path.stat().st_size
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: no such file") from error
    if not is_file:
        raise Unreadable(f"{path}: not a file; give a video")
    if size == 0:
        raise Unreadable(f"{path}: the file is empty; copy or export it again")
    options = {**input_limits(), "max_pixels": str(MAX_PIXELS)}
    request = {"path": file_url(path), "what": what, "options": options, "max_pixels": MAX_PIXELS}
    try:
        answer = read_container(request, _LIMIT_AT_LEAST_S + size / _BYTES_PER_SECOND)
    except ReaderFailed as error:
        raise Unreadable(f"{path}: {error}; convert it to MP4 with H.264 and try again") from error
    if "refused" in answer:
        raise Unreadable(f"{path}: {answer['refused']}")
    if "unreadable" in answer:
        raise _unreadable(path)
    return answer["found"]


def _unreadable(path: Path) -> Unreadable:
    try:
        truncated = _begins_like_mp4(path)
    except OSError as error:
        return Unreadable(f"{path}: cannot be read ({error.strerror}); check its permissions")
    if truncated:
        message = f"{path}: the file begins like a video but is cut off or damaged; copy or export it again"
        return Unreadable(message, truncated=True)
    return Unreadable(f"{path}: not a video that can be read (known: MP4, MOV, MKV, WebM, AVI, MPEG); convert it to MP4")


def _begins_like_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"
