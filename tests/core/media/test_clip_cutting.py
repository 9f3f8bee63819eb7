"""The clip: constant rate, sound to the sample, nothing shifted; the crop: inside the frame and around the head."""

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gensync_core.artefacts import sha256_of
from gensync_core.footage.findings import FaceBox
from gensync_core.media import ffmpeg_command
from gensync_core.media.clip_cutting import SquareCrop, planned_frames, shared_span, square_crop
from gensync_core.media.video import IngestParams, cut_clip, iter_clip, iter_frames, probe

PARAMS = IngestParams(resolution=64)
WHOLE = SquareCrop(16, 0, 128)


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def cut(source: Path, folder: Path, params: IngestParams = PARAMS, crop: SquareCrop = WHOLE) -> tuple[Path, np.ndarray, int]:
    clip = folder / "out.mp4"
    num_frames = cut_clip(source, probe(source), crop, params, clip=clip, wav=folder / "out.wav")
    return clip, read_wav(folder / "out.wav"), num_frames


def test_sound_fills_the_frames_exactly(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    for seconds, sound_s in ((3.0, 3.0), (3.0, 4.5), (4.5, 3.0)):
        clip, sound, num_frames = cut(make_clip(seconds=seconds, sound_s=sound_s), tmp_path)
        found = probe(clip)
        assert num_frames == found.num_frames == pytest.approx(75, abs=2)
        assert len(sound) == num_frames * 640
        assert (found.width, found.height, found.avg_fps) == (64, 64, pytest.approx(25))
        assert not found.variable_rate


def test_nothing_is_shifted_in_footage_of_25_fps(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    clip, sound, num_frames = cut(make_clip(seconds=3, sound_s=3.0), tmp_path)
    frames = list(iter_frames(clip))
    for index in range(num_frames):  # the square is at (32..64, 40..80) of 128 x 160, the crop begins at x = 16
        assert abs(int(frames[index][24, 22, 0]) - (10 + index % 48 * 5)) <= 4, index
    loud = np.flatnonzero(np.abs(sound) > 0.6 * 32767)
    clicks = loud[np.flatnonzero(np.diff(loud, prepend=-8000) > 4000)]
    assert clicks.tolist() == pytest.approx([0, 16000, 32000], abs=40)


@pytest.mark.parametrize(("late_s", "first_frame"), [(0.08, 0), (0.5, 13)])
def test_sound_that_begins_late_stays_where_it_belongs(
    make_clip: Callable[..., Path], make_wav: Callable[..., Path], tmp_path: Path, late_s: float, first_frame: int
) -> None:
    source = tmp_path / "late.mkv"
    pictures = ffmpeg_command.video_input(make_clip(seconds=3, sound_s=None))
    sound = ffmpeg_command.audio_input(make_wav(3.0), itsoffset=late_s)
    ffmpeg_command.run(ffmpeg_command.to_file([pictures, sound], source, **{"c:v": "copy", "c:a": "pcm_s16le"}), 60.0)
    clip, samples, num_frames = cut(source, tmp_path)
    assert num_frames == 75 - first_frame
    assert abs(int(next(iter_frames(clip))[24, 22, 0]) - (10 + first_frame * 5)) <= 4
    loud = np.flatnonzero(np.abs(samples) > 0.6 * 32767)
    clicks = loud[np.flatnonzero(np.diff(loud, prepend=-8000) > 4000)]
    second_click = round((1 + late_s - first_frame / 25) * 16000)
    assert np.abs(clicks - second_click).min() <= 40


SKIN, SHIRT = (201, 142, 118), (30, 70, 160)
RED_AND_BLUE_SHARE = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt470bg": (0.299, 0.114), "fcc": (0.30, 0.11)}


def stored(rgb: tuple[int, int, int], matrix: str, full_range: bool) -> list[int]:
    """Luma and both colour differences, by the formulas of the standards."""
    red_share, blue_share = RED_AND_BLUE_SHARE[matrix]
    red, green, blue = (value / 255 for value in rgb)
    luma = red_share * red + (1 - red_share - blue_share) * green + blue_share * blue
    differences = (blue - luma) / (2 - 2 * blue_share), (red - luma) / (2 - 2 * red_share)
    black, luma_span, colour_span = (0, 255, 255) if full_range else (16, 219, 224)
    return [round(black + luma_span * luma), *(round(128 + colour_span * one) for one in differences)]


@pytest.mark.parametrize(
    ("matrix", "tag", "height", "full_range"),
    [
        ("bt709", "bt709", 160, False),
        ("smpte170m", "smpte170m", 160, False),
        ("smpte170m", None, 160, False),  # standard television, as long as nothing else is said
        ("bt709", None, 640, False),  # as players show it
        ("bt470bg", "bt470bg", 640, True),
        ("fcc", "fcc", 160, False),
    ],
)
def test_colours_stay_what_they_were(
    make_wav: Callable[..., Path], tmp_path: Path, matrix: str, tag: str | None, height: int, full_range: bool
) -> None:
    pixels = np.empty((3, height, 160), np.uint8)
    for half, rgb in ((slice(0, 80), SKIN), (slice(80, 160), SHIRT)):
        pixels[:, :, half] = np.array(stored(rgb, matrix, full_range))[:, None, None]
    said = {"color_range": "pc" if full_range else "tv"} | ({} if tag is None else {"colorspace": tag})
    pictures = ffmpeg_command.frame_input(160, height, 25, "yuv444p").filter(
        "setparams", range=said["color_range"], colorspace=tag or "unknown"
    )
    options = {"c:v": "libx264", "crf": 2, "pix_fmt": "yuv444p", **said}
    source = tmp_path / "colours.mp4"
    sink = ffmpeg_command.Sink(
        ffmpeg_command.to_file([pictures, ffmpeg_command.audio_input(make_wav(0.4))], source, **options), 60.0
    )
    for _ in range(10):
        sink.write(pixels.reshape(-1).data)
    sink.finish()
    assert probe(source).color_matrix == (tag or "unspecified")
    clip, _, _ = cut(source, tmp_path, crop=SquareCrop(16, 0, 128))
    shown = next(iter_clip(clip)).astype(int)
    assert shown[20:44, 8:24].mean(axis=(0, 1)) == pytest.approx(SKIN, abs=3)
    assert shown[20:44, 40:56].mean(axis=(0, 1)) == pytest.approx(SHIRT, abs=3)


def test_30_fps_take_the_nearest_frame(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    clip, _, num_frames = cut(make_clip(seconds=3, sound_s=3.0, fps=30), tmp_path)
    assert num_frames == 75
    for index, frame in enumerate(iter_frames(clip)):
        shown = (int(frame[24, 22, 0]) - 10) / 5
        assert (shown - index * 1.2 + 24) % 48 - 24 == pytest.approx(0, abs=0.9), index


def test_variable_rate_becomes_constant(make_variable_rate_clip: Callable[[], Path], tmp_path: Path) -> None:
    clip, sound, num_frames = cut(make_variable_rate_clip(), tmp_path)
    found = probe(clip)
    assert not found.variable_rate
    assert num_frames == pytest.approx(100, abs=1)
    assert len(sound) == num_frames * 640


def test_odd_sizes_and_turned_footage(make_clip: Callable[..., Path], rotate: Callable[[Path], Path], tmp_path: Path) -> None:
    for source in (
        make_clip(width=161, height=127, seconds=1, sound_s=1.0),
        rotate(make_clip("b.mp4", seconds=1, sound_s=1.0)),
    ):
        clip, _, num_frames = cut(source, tmp_path, crop=SquareCrop(2, 4, 120))
        assert num_frames == 25
        assert next(iter_frames(clip)).shape == (64, 64, 3)


def test_a_cap_cuts(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    params = IngestParams(resolution=64, max_seconds=2)
    source = make_clip(seconds=3, sound_s=3.0)
    _, sound, num_frames = cut(source, tmp_path, params)
    assert num_frames == planned_frames(probe(source), params) == 50
    assert len(sound) == 32000


def test_cutting_twice_gives_the_same_bytes(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    source = make_clip(seconds=2, sound_s=2.0)
    digests = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        cut(source, tmp_path / name)
        digests.append([sha256_of(tmp_path / name / file) for file in ("out.mp4", "out.wav")])
    assert digests[0] == digests[1]


def test_progress_reaches_the_end(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    heard: list[int] = []
    source = make_clip(seconds=1, sound_s=1.0)
    cut_clip(source, probe(source), WHOLE, PARAMS, clip=tmp_path / "c.mp4", wav=tmp_path / "c.wav", on_frame=heard.append)
    assert heard[-1] == 25


def test_span_is_where_both_are(make_clip: Callable[..., Path]) -> None:
    span = shared_span(probe(make_clip(seconds=4, sound_s=3.0)))
    assert span.start_s == pytest.approx(0.0)
    assert span.end_s == pytest.approx(3.0, abs=0.1)


def faces(x: float, y: float, side: float, count: int = 5) -> list[FaceBox]:
    return [FaceBox(float(x), float(y), float(side), float(side))] * count


def test_crop_surrounds_the_head() -> None:
    crop = square_crop(faces(800, 400, 200), 1920, 1080, IngestParams(face_scale=2.4, headroom=0.05))
    assert crop.size == 480
    assert (crop.x + 240, crop.y + 240) == (900, 490)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1720, 0), (0, 880), (1720, 880), (-40, 300)])
def test_crop_stays_inside_by_shifting(x: float, y: float) -> None:
    crop = square_crop(faces(x, y, 200), 1920, 1080, IngestParams())
    assert crop.size == 480
    assert 0 <= crop.x <= 1920 - crop.size
    assert 0 <= crop.y <= 1080 - crop.size


def test_crop_shrinks_where_the_frame_is_too_small() -> None:
    assert square_crop(faces(60, 50, 200), 361, 287, IngestParams()).size == 286


def test_a_frame_that_the_head_fills_is_kept_whole() -> None:
    assert square_crop(faces(150, 150, 210), 512, 512, IngestParams()) == SquareCrop(0, 0, 512)
    assert square_crop(faces(150, 150, 150), 512, 512, IngestParams()).size == 360


def test_one_wrong_box_does_not_move_the_crop() -> None:
    steady = faces(800, 400, 200, count=30)
    assert square_crop([*steady, *faces(0, 0, 20, count=1)], 1920, 1080, IngestParams()) == square_crop(
        steady, 1920, 1080, IngestParams()
    )


def test_a_wandering_head_widens_the_crop() -> None:
    wandering = [face for step in range(21) for face in faces(600 + 20 * step, 400, 200, count=1)]
    crop = square_crop(wandering, 1920, 1080, IngestParams())
    assert crop.x <= 600 + 20
    assert crop.x + crop.size >= 1200 - 20


def test_parameters_are_checked() -> None:
    for wrong in (
        {"resolution": 65},
        {"resolution": 2048},
        {"fps": 30},
        {"crf": 51},
        {"face_scale": 0.5},
        {"max_seconds": 0.2},
    ):
        with pytest.raises(ValueError, match="ingest"):
            IngestParams(**wrong)
