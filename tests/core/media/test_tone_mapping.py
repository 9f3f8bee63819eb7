"""Light of a known amount, stored with the curves of HDR, comes out where it belongs; what is no HDR is left alone."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gensync_core.media import ffmpeg_command, tone_mapping
from gensync_core.media.clip_cutting import IngestParams, SquareCrop, cut_clip
from gensync_core.media.probe import probe
from gensync_core.media.tone_mapping import to_standard_range
from gensync_core.media.video import iter_frames

PQ, HLG = "smpte2084", "arib-std-b67"
WHITE = {PQ: 0.5807, HLG: 0.75}  # signal of 203 cd/m2: BT.2408, table 1
GREY_18_PERCENT = {PQ: 0.3793, HLG: 0.3806}  # the signals that zimg makes of 26 cd/m2


@pytest.fixture(autouse=True)
def needs_zimg() -> None:
    if not tone_mapping.can_tone_map():
        pytest.skip("this ffmpeg has no zscale")


def tagged(path: Path, target: Path, transfer: str) -> Path:
    """The same code values in ten bits, said to be of another transfer characteristic."""
    tags = {"color_trc": transfer, "color_primaries": "bt2020", "colorspace": "bt2020nc"}
    stream = ffmpeg_command.video_input(path).filter("setparams", range="tv", **tags)
    sound = ffmpeg_command.audio_input(path)
    options = {"c:v": "libx264", "crf": 4, "pix_fmt": "yuv420p10le", "color_range": "tv", **tags}
    ffmpeg_command.run(ffmpeg_command.to_file([stream, sound], target, **options), 60.0)
    return target


def mapped(signal: float, transfer: str) -> np.ndarray:
    """RGB of one grey pixel whose stored signal is 0 to 1."""
    luma = round(64 + signal * 876)
    grey = np.concatenate([np.full(256, luma), np.full(512, 512)]).astype("<u2").reshape(3, 16, 16)
    stream = ffmpeg_command.frame_input(16, 16, 25, "yuv444p10le")
    stream = to_standard_range(stream.filter("setparams", range="tv"), transfer)
    output = ffmpeg_command.to_pipe(stream.filter("format", "rgb24"), format="rawvideo", pix_fmt="rgb24")
    arguments = ffmpeg_command._arguments(output)
    finished = subprocess.run(arguments, input=grey.tobytes(), capture_output=True, timeout=60, check=True)
    return np.frombuffer(finished.stdout, np.uint8).reshape(-1, 16, 16, 3)[0, 8, 8].astype(int)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_white_paper_and_grey_card(transfer: str) -> None:
    white, grey = mapped(WHITE[transfer], transfer), mapped(GREY_18_PERCENT[transfer], transfer)
    assert np.ptp(white) <= 1
    assert np.ptp(grey) <= 1
    assert white[0] == pytest.approx(217, abs=3)
    assert grey[0] == pytest.approx(108, abs=4)  # BT.709's curve of an eighth of white, which stays as it is
    assert mapped(0.0, transfer).max() <= 2
    assert mapped(1.0, transfer).min() >= 250


def test_both_curves_agree_over_the_range_of_a_face() -> None:
    assert mapped(WHITE[PQ], PQ)[0] == pytest.approx(mapped(WHITE[HLG], HLG)[0], abs=2)


def test_what_is_no_hdr_is_handed_back() -> None:
    stream = object()
    for transfer in ("bt709", "unspecified", "smpte170m"):
        assert to_standard_range(stream, transfer) is stream


@pytest.mark.parametrize("transfer", [PQ, HLG, "bt2020-10"])
def test_the_clip_of_hdr_footage_is_mapped(make_clip: Callable[..., Path], tmp_path: Path, transfer: str) -> None:
    source = make_clip(seconds=1.0, sound_s=1.0)
    footage = tagged(source, tmp_path / "hdr.mp4", transfer)
    found = probe(footage)
    assert found.color_transfer == transfer
    clip = tmp_path / "cut.mp4"
    params = IngestParams(resolution=64)
    assert cut_clip(footage, found, SquareCrop(0, 0, 128), params, clip=clip, wav=tmp_path / "cut.wav") == 25
    assert probe(clip).color_transfer == "bt709"
    stored = next(iter_frames(source, crop=(0, 0, 128, 128), width=64, height=64)).astype(int)
    shown = next(iter_frames(clip)).astype(int)
    change = float((shown - stored)[4:12, 4:60].mean())
    if transfer == PQ:
        assert change < -5  # dark code values of PQ are darker light than the same ones of BT.709
    if transfer == "bt2020-10":
        assert abs(change) < 12
