"""Reading and writing: exact frame counts, lossless labels, equal bytes for equal input, and inputs that are traps."""

import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gensync_core.artefacts import sha256_of
from gensync_core.errors import FootageRejected, GenSyncError
from gensync_core.media import ffmpeg_command
from gensync_core.media.ffmpeg_command import FfmpegFailed
from gensync_core.media.frames import FrameStore
from gensync_core.media.video import (
    LabelWriter,
    Unreadable,
    VideoWriter,
    convert_audio,
    ffmpeg_binary,
    iter_clip,
    iter_frames,
    iter_gray,
    iter_labels,
    probe,
)


def test_every_written_frame_comes_back(make_clip: Callable[..., Path], make_frame: Callable[..., np.ndarray]) -> None:
    frames = list(iter_frames(make_clip(seconds=2, sound_s=2.0)))
    assert len(frames) == 50
    for index in (0, 7, 49):
        error = np.abs(frames[index].astype(int) - make_frame(index, 160, 128))
        assert error.mean() < 3, index
        assert abs(int(frames[index][48, 60, 0]) - (10 + index % 48 * 5)) <= 3


def test_frames_can_be_cropped_scaled_and_resampled(make_clip: Callable[..., Path]) -> None:
    path = make_clip(seconds=4)
    assert len(list(iter_frames(path, fps=2))) == 8
    part = list(iter_frames(path, crop=(40, 32, 40, 32), width=20, height=16, start_s=1.0, duration_s=2.0))
    assert len(part) == 50
    assert part[0].shape == (16, 20, 3)
    assert abs(int(part[0][8, 10, 0]) - (10 + 25 * 5)) <= 5  # the square of frame 25, which the crop shows alone


def test_a_clip_is_read_as_any_video_is(tmp_path: Path, make_frame: Callable[..., np.ndarray]) -> None:
    with VideoWriter(tmp_path / "clip.mp4", 64, 48, 25, pixel_format="yuv444p") as writer:
        for index in range(30):
            writer.write(make_frame(index, 64, 48))
    clip, labels = tmp_path / "clip.mp4", tmp_path / "labels.mkv"
    for quick, whole in zip(iter_clip(clip), iter_frames(clip), strict=True):
        assert np.abs(quick.astype(int) - whole).max() <= 1
    with LabelWriter(labels, 64, 48, 25) as writer:
        for index in range(30):
            writer.write(np.full((48, 64), index, dtype=np.uint8))
    for start in (1, 11, 29):
        np.testing.assert_array_equal(list(iter_gray(clip, start)), list(iter_gray(clip))[start:])
        np.testing.assert_array_equal(list(iter_labels(labels, start)), list(iter_labels(labels))[start:])


def test_a_file_that_is_turned_is_shown_upright(make_clip: Callable[..., Path], rotate: Callable[[Path], Path]) -> None:
    path = rotate(make_clip(seconds=1))
    found = probe(path)
    assert (found.width, found.height) == (128, 160)
    assert found.rotation_deg % 180 == 90
    assert next(iter_frames(path)).shape == (160, 128, 3)


def test_probe_counts_and_times(make_clip: Callable[..., Path]) -> None:
    found = probe(make_clip(seconds=4, sound_s=5.0, fps=30))
    assert (found.width, found.height, found.num_frames) == (160, 128, 120)
    assert found.has_video
    assert found.has_audio
    assert not found.variable_rate
    assert found.avg_fps == pytest.approx(30)
    assert found.video_duration_s == pytest.approx(4.0)
    assert found.audio_duration_s == pytest.approx(5.0, abs=0.1)
    assert found.codec == "h264"


def test_frames_of_a_variable_rate_are_neither_repeated_nor_dropped(make_variable_rate_clip: Callable[[], Path]) -> None:
    path = make_variable_rate_clip()
    assert probe(path).variable_rate
    assert len(list(iter_frames(path))) == 100
    assert len(list(iter_frames(path, fps=25))) in {100, 101}


def test_labels_are_lossless_and_their_bytes_repeat(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (7, 33, 45), dtype=np.uint8)
    for name in ("first.mkv", "second.mkv"):
        with LabelWriter(tmp_path / name, 45, 33, 25) as writer:
            for label in labels:
                writer.write(label)
    np.testing.assert_array_equal(np.stack(list(iter_labels(tmp_path / "first.mkv"))), labels)
    assert sha256_of(tmp_path / "first.mkv") == sha256_of(tmp_path / "second.mkv")


def test_videos_with_sound_repeat_to_the_byte(make_clip: Callable[..., Path]) -> None:
    assert sha256_of(make_clip("a.mp4", seconds=1, sound_s=1.0)) == sha256_of(make_clip("b.mp4", seconds=1, sound_s=1.0))


def test_sound_is_neither_cut_nor_padded_and_does_not_change_the_frames(make_clip: Callable[..., Path]) -> None:
    found = probe(make_clip(seconds=2, sound_s=1.0))
    assert found.num_frames == 50
    assert found.audio_duration_s == pytest.approx(1.0, abs=0.1)


def test_a_failed_writer_leaves_nothing(tmp_path: Path, make_frame: Callable[..., np.ndarray]) -> None:
    def interrupted() -> None:
        with VideoWriter(tmp_path / "half.mp4", 64, 64, 25) as writer:
            writer.write(make_frame(0, 64, 64))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "none.mp4", 64, 64, 25):
        pass
    with pytest.raises(FfmpegFailed), VideoWriter(tmp_path / "wrong.nonsense", 64, 64, 25) as writer:
        for _ in range(200):
            writer.write(make_frame(0, 64, 64))
    assert list(tmp_path.iterdir()) == []


def test_writers_say_what_they_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        VideoWriter(tmp_path / "odd.mp4", 65, 64, 25)
    with VideoWriter(tmp_path / "clip.mp4", 64, 64, 25) as writer:
        with pytest.raises(ValueError, match="expected uint8"):
            writer.write(np.zeros((64, 62, 3), dtype=np.uint8))
        writer.write(np.zeros((64, 64, 3), dtype=np.uint8))
    assert probe(tmp_path / "clip.mp4").num_frames == 1


def test_sound_of_any_container_is_converted(
    make_clip: Callable[..., Path], make_wav: Callable[..., Path], tmp_path: Path
) -> None:
    def converted(path: Path) -> np.ndarray:
        convert_audio(path, tmp_path / "converted.wav")
        samples, rate_hz = soundfile.read(tmp_path / "converted.wav", dtype="float32")
        assert rate_hz == 16_000
        assert samples.ndim == 1
        return samples

    wav = converted(make_wav(2.0))
    assert len(wav) == 32000
    assert np.abs(wav).max() == pytest.approx(0.9, abs=0.01)
    assert len(converted(make_clip(seconds=2, sound_s=2.0))) == pytest.approx(32000, abs=1100)
    with pytest.raises(FootageRejected, match="no sound"):
        convert_audio(make_clip("silent.mp4", seconds=1, sound_s=None), tmp_path / "none.wav")


def test_a_concat_script_does_not_reach_its_neighbour(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    make_clip("neighbour.mp4", seconds=1)
    trap = tmp_path / "trap.mp4"
    for script in ("ffconcat version 1.0\nfile neighbour.mp4\n", "#EXTM3U\n#EXTINF:1,\nneighbour.mp4\n#EXT-X-ENDLIST\n"):
        trap.write_text(script)
        with pytest.raises(Unreadable):
            probe(trap)
        # Not through PyAV, whose refusal would hide whether ffmpeg refuses as well.
        output = ffmpeg_command.to_pipe(ffmpeg_command.video_input(trap), format="rawvideo", pix_fmt="rgb24")
        with pytest.raises(FfmpegFailed):
            ffmpeg_command.read_all(output, 30.0, 1_000_000)


def test_a_name_that_looks_like_an_option_or_an_address_is_a_file(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("-y.mp4", "http:a.mp4", "a %d'[x];.mp4"):
        path = make_clip("plain.mp4", seconds=0.4, sound_s=0.4).rename(tmp_path / name)
        assert len(list(iter_frames(path))) == 10


def test_binary_is_taken_from_the_environment_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENSYNC_FFMPEG", str(tmp_path / "nothing"))
    with pytest.raises(GenSyncError, match="GENSYNC_FFMPEG"):
        ffmpeg_binary()
    monkeypatch.delenv("GENSYNC_FFMPEG")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "imageio_ffmpeg" in ffmpeg_binary()
    mine = tmp_path / "ffmpeg"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(mine.stat().st_mode | stat.S_IXUSR)
    assert ffmpeg_binary() == str(mine)


def test_a_hanging_ffmpeg_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip(seconds=0.4)
    hanging = tmp_path / "ffmpeg"
    hanging.write_text(f"#!{sys.executable}\nimport sys, time\nsys.stderr.write('busy')\nsys.stderr.flush()\ntime.sleep(60)\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("GENSYNC_FFMPEG", str(hanging))
    start = time.monotonic()
    output = ffmpeg_command.to_pipe(ffmpeg_command.video_input(clip), format="rawvideo")
    with pytest.raises(FfmpegFailed, match=r"stopped after 1 s: busy"):
        ffmpeg_command.read_all(output, 1.0, 1000)
    sink = ffmpeg_command.Sink(
        ffmpeg_command.to_file([ffmpeg_command.frame_input(8, 8, 25, "gray")], tmp_path / "x.mkv"), limit_s=1.0
    )
    with pytest.raises(FfmpegFailed, match="stopped"):
        sink.finish()
    sink.close()
    assert time.monotonic() - start < 20


def test_errors_carry_the_end_of_what_ffmpeg_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 200)
    output = ffmpeg_command.to_pipe(ffmpeg_command.video_input(broken), format="rawvideo")
    with pytest.raises(FfmpegFailed, match="moov atom not found"):
        ffmpeg_command.read_all(output, 30.0, 1_000_000)


def test_frame_store_decodes_once_and_reads_any_frame(
    make_clip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, scratch = make_clip(seconds=2), tmp_path / "scratch"
    frames = list(iter_clip(clip))
    store = FrameStore.open(clip, scratch)
    assert len(store) == 50
    assert store.shape == (128, 160, 3)
    np.testing.assert_array_equal(store[33], frames[33])
    monkeypatch.setattr("gensync_core.media.frames._decode", None)
    np.testing.assert_array_equal(FrameStore.open(clip, scratch)[49], frames[49])


def test_frame_store_of_labels(tmp_path: Path) -> None:
    with LabelWriter(tmp_path / "masks.mkv", 12, 10, 25) as writer:
        for value in range(4):
            writer.write(np.full((10, 12), value, dtype=np.uint8))
    store = FrameStore.open(tmp_path / "masks.mkv", tmp_path / "scratch", gray=True)
    assert [int(store[index].max()) for index in range(len(store))] == [0, 1, 2, 3]
    assert store[2].shape == (10, 12)
