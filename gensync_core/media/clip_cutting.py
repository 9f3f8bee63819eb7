"""From footage to the clip that all later stages work on: constant rate, square, sound cut to the frame."""

import math
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int16

from gensync_core.errors import FootageRejected
from gensync_core.media import ffmpeg_command
from gensync_core.media.ffmpeg_command import LEAST_WAIT_S, FfmpegFailed
from gensync_core.media.probe import Probe, probe
from gensync_core.media.tone_mapping import needs_tone_mapping, to_standard_range

FPS = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS
BT709 = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
MAX_GAP_S = 0.1  # what the sound may lack at either end before pictures are cut for it

_HD_MATRIX, _SD_MATRIX = "bt709", "smpte170m"
_SD_WIDTH, _SD_HEIGHT = 1024, 576  # the largest picture of standard television, pixels square
_GOP = 12  # half a second at most is decoded to reach a frame
_MAX_RESOLUTION = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestParams:
    """How footage becomes a clip.

    Attributes:
        resolution: width and height of the clip in px, even.
        fps: frame rate of the clip; everything behind it is built for 25.
        crf: of x264, 0 to 30: lower keeps more.
        face_scale: side of the crop over the height of the face's box: 2.4 shows hair and shoulders.
        headroom: how far the crop's centre lies above the face's, over the height of the face's box.
        keep_whole: a nearly square frame of which the crop would take at least this share is kept whole.
        max_seconds: use only the beginning of the footage (for trials); null: all of it.
    """

    resolution: int = 256
    fps: int = FPS
    crf: float | int = 10
    face_scale: float | int = 2.4
    headroom: float | int = 0.05
    keep_whole: float | int = 0.85
    max_seconds: float | int | None = None

    def __post_init__(self) -> None:
        if not 32 <= self.resolution <= _MAX_RESOLUTION or self.resolution % 2:
            raise ValueError(f"ingest.resolution is {self.resolution}, expected an even number from 32 to {_MAX_RESOLUTION}")
        if self.fps != FPS:
            raise ValueError(f"ingest.fps is {self.fps}, expected {FPS}")
        if not 0 <= self.crf <= 30:
            raise ValueError(f"ingest.crf is {self.crf}, expected 0 to 30")
        if not 1 <= self.face_scale <= 6:
            raise ValueError(f"ingest.face_scale is {self.face_scale}, expected 1 to 6")
        if not -0.5 <= self.headroom <= 0.5:
            raise ValueError(f"ingest.headroom is {self.headroom}, expected -0.5 to 0.5")
        if not 0.3 <= self.keep_whole <= 1:
            raise ValueError(f"ingest.keep_whole is {self.keep_whole}, expected 0.3 to 1")
        if self.max_seconds is not None and self.max_seconds < 1:
            raise ValueError(f"ingest.max_seconds is {self.max_seconds}, expected null or at least 1")


@runtime_checkable
class BoxLike(Protocol):
    """A face's left, top, width and height in px."""

    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def w(self) -> float: ...
    @property
    def h(self) -> float: ...


class SquareCrop(NamedTuple):
    """Left, top and side of a square in px of the footage as shown; even numbers."""

    x: int
    y: int
    size: int


class Span(NamedTuple):
    """The part of the footage that has pictures and sound, on the footage's own clock."""

    start_s: float
    end_s: float

    @property
    def num_frames(self) -> int:
        """Whole frames of the clip that fit."""
        return int((self.end_s - self.start_s) * FPS + 0.5)


def shared_span(found: Probe) -> Span:
    """Where pictures and sound overlap; up to 0.1 s of missing sound at either end is left to be filled with silence."""
    start_s, end_s = found.video_start_s, found.video_end_s
    if found.audio_start_s - start_s > MAX_GAP_S:
        # On the grid of the frames: footage of 25 fps is then taken frame by frame here too.
        start_s += math.ceil((found.audio_start_s - start_s) * FPS) / FPS
    if end_s - found.audio_end_s > MAX_GAP_S:
        end_s = found.audio_end_s
    return Span(start_s, max(start_s, end_s))


def in_sync(found: Probe, sound_late_s: float) -> Probe:
    """The same with the sound where it belongs; positive: it was late."""
    return replace(found, audio_start_s=found.audio_start_s - sound_late_s)


def planned_frames(found: Probe, params: IngestParams) -> int:
    """How many frames the clip will have, to within one."""
    longest = shared_span(found).num_frames
    return longest if params.max_seconds is None else min(longest, int(params.max_seconds * FPS))


_NEARLY_SQUARE = 1.1
_ROOM_AROUND_FACE = 1.6


def square_crop(faces: Sequence[BoxLike], width: int, height: int, params: IngestParams) -> SquareCrop:
    """One static square around the speaker's head with hair and shoulders, inside the frame.

    Args:
        faces: the speaker's face in frames spread over the footage, at least one.
        width: of the frame as shown, px.
        height: likewise.
        params: how much to show.

    Source: own choice. The median box decides; a head that moves about widens the square until it stays inside.
    """
    boxes = np.array([(face.x + face.w / 2, face.y + face.h / 2, face.h) for face in faces], dtype=np.float64)
    centre_x, centre_y, face_px = np.median(boxes, axis=0)
    travel_px = np.ptp(np.percentile(boxes[:, :2], [5, 95], axis=0), axis=0).max()
    wanted_px = max(params.face_scale * face_px, travel_px + _ROOM_AROUND_FACE * face_px)
    largest_px = min(width, height)
    if max(width, height) <= _NEARLY_SQUARE * largest_px and wanted_px >= params.keep_whole * largest_px:
        wanted_px = largest_px
    size = _even(min(wanted_px, largest_px))
    left = centre_x - size / 2
    top = centre_y - params.headroom * face_px - size / 2
    return SquareCrop(_even(min(max(left, 0), width - size)), _even(min(max(top, 0), height - size)), size)


def _even(value: float | int) -> int:
    return int(value) // 2 * 2


def to_display(stream: Any, width: int, height: int, square_pixels: bool) -> Any:
    """Make pixels square; ffmpeg itself has applied the rotation already."""
    if square_pixels:
        return stream
    return stream.filter("scale", width, height, flags=ffmpeg_command.SCALING).filter("setsar", 1)


def to_yuv(stream: Any, width: int | None = None, height: int | None = None, matrix: str | None = None) -> Any:
    """Scale (None: keep the size) and convert to BT.709, limited range; `matrix`: of the stream, if it is `stored_matrix`."""
    size, to_matrix = (width or "iw", height or "ih"), matrix or _HD_MATRIX
    known = {} if matrix is None else {"in_color_matrix": matrix}
    scaled = stream.filter("scale", *size, flags=ffmpeg_command.SCALING, **known, out_color_matrix=to_matrix, out_range="tv")
    if to_matrix == _HD_MATRIX:
        return scaled
    # The scaler itself would go by way of RGB: three times the time, and what RGB cannot show is cut off.
    same = dict.fromkeys(("iprimaries", "primaries", "itrc", "trc"), "bt709")
    in_full = scaled.filter("format", "yuv444p")
    return in_full.filter("colorspace", ispace=matrix, space=_HD_MATRIX, irange="tv", range="tv", fast=1, **same)


def stored_matrix(found: Probe) -> str | None:
    """The matrix of footage with luma and chroma, if it is BT.709's or BT.601's; what does not say is judged as players do."""
    if not found.pix_fmt.startswith(("yuv", "nv", "p0")):
        return None
    if found.color_matrix == "unspecified":
        return _HD_MATRIX if found.width > _SD_WIDTH or found.height > _SD_HEIGHT else _SD_MATRIX
    return {"bt709": _HD_MATRIX, "smpte170m": _SD_MATRIX, "bt470bg": _SD_MATRIX}.get(found.color_matrix)


def cut_clip(
    source: Path,
    found: Probe,
    crop: SquareCrop,
    params: IngestParams,
    *,
    clip: Path,
    wav: Path,
    sound_late_s: float = 0.0,
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """Write the clip (25 fps, square, H.264) and its sound (16 kHz mono PCM16), aligned; returns the number of frames.

    Frame i shows what the footage shows at the clip's start + i / 25 s (nearest frame); the sound has 640 samples a frame. A
    sound that is `sound_late_s` behind the pictures is shifted forward by that much.

    Raises:
        FootageRejected: decoding fails, or no time has both pictures and sound.
    """
    in_time = in_sync(found, sound_late_s)
    span, wanted = shared_span(in_time), planned_frames(in_time, params)
    if wanted < 1:
        raise FootageRejected(f"{source}: pictures and sound do not overlap; export both on one timeline")
    limit_s = _cutting_limit_s(found, params)
    try:
        ffmpeg_command.run(_pictures(source, found, crop, span, wanted, params, clip), limit_s, on_frame)
        num_frames = probe(clip).num_frames
        _write_wav(wav, _sound(source, span.start_s + sound_late_s, num_frames, limit_s))
    except FfmpegFailed as error:
        raise FootageRejected(f"{source}: cannot be decoded ({error}); convert it to MP4 with H.264 and try again") from error
    return num_frames


def _cutting_limit_s(found: Probe, params: IngestParams) -> float:
    """Wall-clock limit of decoding footage and of encoding its clip: it grows with length and size."""
    seconds = found.duration_s
    decoding_s = ffmpeg_command.work_s(found.width, found.height, seconds)
    return 2 * LEAST_WAIT_S + decoding_s + ffmpeg_command.work_s(params.resolution, params.resolution, seconds)


def _pictures(
    source: Path, found: Probe, crop: SquareCrop, span: Span, num_frames: int, params: IngestParams, clip: Path
) -> Any:
    # copyts: times in the graph are those that the probe saw, whatever the container's start.
    stream = ffmpeg_command.video_input(source, copyts=None)
    stream = stream.filter("setpts", expr=f"PTS-{span.start_s:.6f}/TB").filter("fps", fps=FPS, start_time=0)
    stream = to_display(stream, found.width, found.height, found.square_pixels)
    stream = stream.filter("crop", crop.size, crop.size, crop.x, crop.y)
    matrix = stored_matrix(found)
    if needs_tone_mapping(found.color_transfer):
        small = stream.filter("scale", params.resolution, params.resolution, flags=ffmpeg_command.SCALING)
        stream, matrix = to_standard_range(small, found.color_transfer), None
    options = {
        "c:v": "libx264",
        "crf": params.crf,
        "preset": "veryfast",  # a third of the time of medium, and no larger
        "pix_fmt": "yuv444p",  # full colour resolution: lips are a few pixels wide
        "g": _GOP,
        "r": FPS,
        "frames:v": num_frames,
        "movflags": "+faststart",
        **BT709,
    }
    return ffmpeg_command.to_file([to_yuv(stream, params.resolution, params.resolution, matrix)], clip, **options)


def sound_within(source: Path, span: Span, rate_hz: int) -> Any:
    """A stream of the sound within a span on the footage's own clock: sample i is heard i / `rate_hz` after its beginning."""
    # copyts: times in the graph are those that the probe saw, whatever the container's start.
    stream = ffmpeg_command.audio_input(source, copyts=None)
    stream = stream.filter("atrim", start=f"{span.start_s:.6f}", end=f"{span.end_s:.6f}")
    stream = stream.filter("asetpts", expr=f"PTS-{span.start_s:.6f}/TB")
    # async fills holes in the sound with silence, so that what follows stays where it belongs.
    return stream.filter("aresample", rate_hz, **{"async": 1, "first_pts": 0})


def _sound(source: Path, start_s: float, num_frames: int, limit_s: float) -> Int16[np.ndarray, "N"]:
    stream = sound_within(source, Span(start_s, start_s + num_frames / FPS + 1), SAMPLE_RATE_HZ)
    output = ffmpeg_command.to_pipe(stream, format="s16le", ac=1, ar=SAMPLE_RATE_HZ)
    content = ffmpeg_command.read_all(output, limit_s, num_frames * SAMPLES_PER_FRAME * 2)
    samples = np.frombuffer(content, dtype="<i2")
    return np.pad(samples, (0, num_frames * SAMPLES_PER_FRAME - len(samples)))


def _write_wav(path: Path, samples: Int16[np.ndarray, "N"]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.tobytes())
