"""Reading and writing of videos, frame by frame; the rest of the core comes to ffmpeg through here.

Frames are RGB uint8 [H, W, 3]; what is written is BT.709, limited range, and tagged so.
"""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8

from gensync_core.artefacts import atomic_path
from gensync_core.errors import FootageRejected
from gensync_core.media import ffmpeg_command
from gensync_core.media.clip_cutting import BT709, IngestParams, cut_clip, to_display, to_yuv
from gensync_core.media.ffmpeg_command import FfmpegFailed, Patience, ffmpeg_binary, work_s
from gensync_core.media.probe import Probe, Unreadable, display_size, probe, sound_format

__all__ = [
    "IngestParams",
    "LabelWriter",
    "Probe",
    "Unreadable",
    "VideoWriter",
    "convert_audio",
    "cut_clip",
    "ffmpeg_binary",
    "iter_clip",
    "iter_frames",
    "iter_gray",
    "iter_labels",
    "iter_raw",
    "probe",
]

_FRAME_S = 1 / 25
# From Y, Cb and Cr to R, G and B; the last column is added. Source: ITU-R BT.709.
_TO_RGB = np.array(
    [
        [1.164384, 0.0, 1.792741, -248.1007],
        [1.164384, -0.213249, -0.532909, 76.87816],
        [1.164384, 2.112402, 0.0, -289.0176],
    ],
    dtype=np.float32,
)
_WRITING_LIMIT_S = 120.0
_AUDIO_LIMIT_S = 600.0
_SLOT_S = 1000  # frames are numbered, not timed, on their way through the pipe


def iter_frames(
    path: Path,
    *,
    fps: float | int | None = None,
    width: int | None = None,
    height: int | None = None,
    crop: tuple[int, int, int, int] | None = None,
    start_s: float | int = 0,
    duration_s: float | int | None = None,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames of a video as they are to be shown: rotation applied, pixels square.

    Args:
        path: any container of a known kind.
        fps: take frames at this constant rate; None: every stored frame.
        width: scale to this width, in px; None: as cropped.
        height: likewise.
        crop: x, y, width, height in px of the whole picture, before scaling.
        start_s: skip this much of the beginning.
        duration_s: stop after this much.

    Raises:
        FootageRejected: the file holds no video or decoding fails.
    """
    shown_width, shown_height, square = display_size(path)
    stored_size = shown_width, shown_height
    seek = {} if start_s == 0 else {"ss": start_s}
    stream = ffmpeg_command.video_input(path, **seek, **({} if duration_s is None else {"t": duration_s}))
    stream = to_display(stream, shown_width, shown_height, square)
    if fps is not None:
        stream = stream.filter("fps", fps=str(Fraction(fps).limit_denominator(1000)))
    if crop is not None:
        stream = stream.filter("crop", crop[2], crop[3], crop[0], crop[1], exact=1)
        shown_width, shown_height = crop[2], crop[3]
    size = (height or shown_height, width or shown_width)
    stream = stream.filter("scale", size[1], size[0], flags=ffmpeg_command.SCALING)
    patience = Patience(work_s(*stored_size, _FRAME_S if fps is None else 1 / float(fps)))
    yield from iter_raw(path, stream, (*size, 3), "rgb24", patience)


def iter_clip(path: Path) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    """Frames of a clip that `cut_clip` wrote (BT.709, 16 to 235, whole colour resolution); two thirds of `iter_frames`' time.

    Raises:
        FootageRejected: the file holds no video or decoding fails.
    """
    width, height, _ = display_size(path)
    stream = ffmpeg_command.video_input(path, threads=1)  # quicker than whoever looks at the frames
    patience = Patience(work_s(width, height, _FRAME_S))
    for luma, blue, red in iter_raw(path, stream, (3, height, width), "yuv444p", patience):
        yield cv2.transform(cv2.merge([luma, blue, red]), _TO_RGB)


def iter_gray(path: Path, start: int = 0) -> Iterator[UInt8[np.ndarray, "H W"]]:
    """Brightness of the frames of a clip as it is stored (BT.709, 16 to 235), from frame `start` on: nothing is converted.

    Raises:
        FootageRejected: the file holds no video or decoding fails.
    """
    yield from _iter_plane(path, start, "y")


def iter_labels(path: Path, start: int = 0) -> Iterator[UInt8[np.ndarray, "H W"]]:
    """Frames of a label video from frame `start` on, value for value as `LabelWriter` was given them.

    Raises:
        FootageRejected: the file holds no video or decoding fails.
    """
    yield from _iter_plane(path, start)


def _iter_plane(path: Path, start: int, plane: str | None = None) -> Iterator[np.ndarray]:
    """Frames [H, W] of a video at 25 fps, one byte a pixel: a plane as it is stored, or its grey picture."""
    width, height, _ = display_size(path)
    stream = ffmpeg_command.video_input(path, threads=1, **({"ss": (start - 0.5) * _FRAME_S} if start else {}))
    if plane is not None:
        stream = stream.filter("extractplanes", plane)
    yield from iter_raw(path, stream, (height, width), "gray", Patience(work_s(width, height, _FRAME_S)))


def iter_raw(path: Path, stream: Any, shape: tuple[int, ...], pixel_format: str, patience: Patience) -> Iterator[np.ndarray]:
    """Every frame of a filtered stream, as uint8 of the given shape.

    Raises:
        FootageRejected: decoding fails.
    """
    # ffmpeg repeats or drops frames until a raw output has a constant rate, and no option that prevents it exists in all
    # versions. So every frame gets a slot of its own, so long that no frame's duration reaches into the next.
    stream = stream.filter("settb", expr=_SLOT_S).filter("setpts", expr="N")
    output = ffmpeg_command.to_pipe(stream, format="rawvideo", pix_fmt=pixel_format, r=f"1/{_SLOT_S}")
    frame = np.empty(shape, dtype=np.uint8)

    def next_block() -> memoryview:
        nonlocal frame
        frame = np.empty(shape, dtype=np.uint8)
        return frame.reshape(-1).data

    try:
        for _ in ffmpeg_command.read_blocks(output, next_block, patience):
            yield frame
    except FfmpegFailed as error:
        raise FootageRejected(f"{path}: cannot be decoded ({error}); convert it to MP4 with H.264 and try again") from error


def convert_audio(path: Path, wav: Path, sample_rate: int = 16_000, most_s: float | int | None = None) -> None:
    """Write the first sound track of any file as mono float WAV (channels averaged), in constant memory.

    Args:
        path: any container of a known kind.
        wav: target.
        sample_rate: Hz.
        most_s: write no more than this much of the beginning.

    Raises:
        FootageRejected: the file has no sound, or it cannot be decoded.
    """
    sound_format(path)
    sound = ffmpeg_command.audio_input(path)
    options = {"format": "wav", "rf64": "auto", "ac": 1, "ar": sample_rate, "c:a": "pcm_f32le"}
    output = ffmpeg_command.to_file([sound], wav, **options, **({} if most_s is None else {"t": most_s}))
    try:
        ffmpeg_command.run(output, _AUDIO_LIMIT_S)
    except FfmpegFailed as error:
        raise FootageRejected(f"{path}: its sound cannot be decoded ({error}); convert it to WAV and try again") from error


_AnyWriter = TypeVar("_AnyWriter", bound="_Writer")  # typing.Self is refused by the run-time checker of the tests


class _Writer:
    """Frames into one file, which appears under its name when it is whole and not at all after an error."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path, self._shape = path, shape
        self._stack = ExitStack()
        self._sink: ffmpeg_command.Sink | None = None
        self.num_frames = 0

    def _output(self, temporary: Path) -> Any:
        raise NotImplementedError

    def __enter__(self: _AnyWriter) -> _AnyWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._sink = ffmpeg_command.Sink(self._output(temporary), _WRITING_LIMIT_S)
            stack.callback(self._sink.close)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add one frame.

        Raises:
            ValueError: wrong shape or type, or the writer is not open.
            FfmpegFailed: ffmpeg does not take it.
        """
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"{self._path}: frame is {frame.dtype} {frame.shape}, expected uint8 {self._shape}")
        if self._sink is None:
            raise ValueError(f"{self._path}: the writer is not open; use it in a with statement")
        self._sink.write(np.ascontiguousarray(frame).reshape(-1).data)
        self.num_frames += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        sink, self._sink = self._sink, None
        try:
            if kind is None and sink is not None:
                if self.num_frames == 0:
                    raise ValueError(f"{self._path}: no frame was written")
                sink.finish()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)


class VideoWriter(_Writer):
    """H.264 in MP4 that starts to play before it is loaded whole; one stored frame for each `write`.

    Args:
        path: target, ending in `.mp4`.
        width: px.
        height: px.
        fps: frames per second.
        audio: sound to put beside the pictures, as AAC; it is neither cut nor padded.
        crf: 0 (lossless) to 51; 16 shows no difference at normal viewing distance.
        preset: of x264: slower is smaller.
        pixel_format: `yuv420p` plays everywhere and needs even sizes; `yuv444p` keeps full colour resolution.

    Raises:
        ValueError: odd sizes with `yuv420p`, or a crf out of range.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: float | int,
        audio: Path | None = None,
        *,
        crf: float | int = 16,
        preset: str = "medium",
        pixel_format: Literal["yuv420p", "yuv444p"] = "yuv420p",
    ) -> None:
        if pixel_format == "yuv420p" and (width % 2 or height % 2):
            raise ValueError(f"{path}: {width}x{height} px: yuv420p needs an even width and height")
        if not 0 <= crf <= 51:
            raise ValueError(f"crf is {crf}, expected 0 to 51")
        super().__init__(path, (height, width, 3))
        self._fps, self._audio = fps, audio
        self._video_options = {
            "c:v": "libx264",
            "crf": crf,
            "preset": preset,
            "pix_fmt": pixel_format,
            "r": fps,
            "movflags": "+faststart",
            **BT709,
        }

    def _output(self, temporary: Path) -> Any:
        height, width, _ = self._shape
        pictures = to_yuv(ffmpeg_command.frame_input(width, height, self._fps, "rgb24"))
        if self._audio is None:
            return ffmpeg_command.to_file([pictures], temporary, **self._video_options)
        streams = [pictures, ffmpeg_command.audio_input(self._audio)]
        return ffmpeg_command.to_file(streams, temporary, **self._video_options, **{"c:a": "aac", "b:a": "96k"})


class LabelWriter(_Writer):
    """One uint8 label per pixel, lossless: FFV1 in Matroska.

    Args:
        path: target, ending in `.mkv`.
        width: px.
        height: px.
        fps: frames per second.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float | int) -> None:
        super().__init__(path, (height, width))
        self._fps = fps

    def _output(self, temporary: Path) -> Any:
        height, width = self._shape
        labels = ffmpeg_command.frame_input(width, height, self._fps, "gray")
        # Level 3 with checksums: a damaged slice is an error and no longer a wrong label.
        options = {"c:v": "ffv1", "level": 3, "slicecrc": 1, "g": 1, "pix_fmt": "gray", "r": self._fps}
        return ffmpeg_command.to_file([labels], temporary, **options)
