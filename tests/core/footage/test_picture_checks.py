"""Each defect of the pictures gets its code and its place, from a real file through the real scan; a moving head gets none."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gensync_core.errors import FootageRejected
from gensync_core.footage.findings import FaceBox, Finding
from gensync_core.footage.gate_params import PictureParams
from gensync_core.footage.picture_checks import PICTURE_CHECKS
from gensync_core.footage.picture_scan import PictureFacts, scan_picture
from gensync_core.media import ffmpeg_command, tone_mapping
from gensync_core.media.clip_cutting import SquareCrop
from gensync_core.media.picture_tiles import DecodingLog, iter_tiles
from gensync_core.media.probe import probe
from gensync_core.media.video import VideoWriter

WIDTH, HEIGHT = 192, 160
FACE = FaceBox(66.0, 40.0, 60.0, 70.0)
SCENES = {1: (90, 60, 40), 2: (30, 120, 200), 3: (160, 160, 60), 4: (200, 70, 150)}


def head(index: int, scene: int = 1, *, sway_px: float = 6.0) -> np.ndarray:
    """Somebody in front of a textured wall who sways, blinks and moves the mouth."""
    noise = np.random.default_rng(scene).integers(-30, 30, (HEIGHT // 4, WIDTH // 4, 1)).repeat(4, 0).repeat(4, 1)
    image = np.clip(np.array(SCENES[scene]) + noise, 0, 255).astype(np.uint8)
    x, y = round(96 + sway_px * np.sin(index / 9)), 76
    cv2.ellipse(image, (x, y), (30, 40), 0, 0, 360, (205, 160, 135), -1)
    cv2.line(image, (x, y - 8), (x + 3, y + 8), (150, 105, 85), 2)
    for side in (-11, 11):
        open_px = 1 if index % 50 < 4 else 4
        cv2.ellipse(image, (x + side, y - 12), (6, open_px), 0, 0, 360, (235, 235, 235), -1)
        cv2.circle(image, (x + side, y - 12), min(open_px, 3), (40, 25, 20), -1)
        cv2.line(image, (x + side - 6, y - 21), (x + side + 6, y - 22), (60, 35, 25), 2)
    cv2.ellipse(image, (x, y + 20), (11, 2 + round(5 * abs(np.sin(index / 2.1)))), 0, 0, 360, (110, 30, 35), -1)
    return image


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(frames: Iterable[np.ndarray], *, crf: int = 12, fps: float = 25) -> Path:
        path = tmp_path / "footage.mp4"
        with VideoWriter(path, WIDTH, HEIGHT, fps, crf=crf, preset="veryfast") as writer:
            for frame in frames:
                writer.write(frame)
        return path

    return write


def scan(path: Path) -> PictureFacts:
    return scan_picture(path, probe(path), [FACE])


def found_in(facts: PictureFacts, params: PictureParams | None = None) -> list[Finding]:
    return [finding for check in PICTURE_CHECKS for finding in check(facts, params or PictureParams())]


def only(findings: list[Finding], code: str, severity: str) -> Finding:
    assert [(finding.code, finding.severity) for finding in findings] == [(code, severity)]
    return findings[0]


@pytest.mark.parametrize("crf", [12, 32])
def test_a_head_that_moves_blinks_and_sways_has_no_findings(write: Callable[..., Path], crf: int) -> None:
    facts = scan(write((head(index, sway_px=12.0) for index in range(150)), crf=crf))
    assert found_in(facts) == []
    assert facts.seconds == pytest.approx(6.0)
    assert [look.time_s for look in facts.looks[:3]] == [0.0, 0.48, 0.96]


def test_a_mouth_alone_that_moves_is_not_frozen(write: Callable[..., Path]) -> None:
    assert found_in(scan(write((head(index, sway_px=0.0) for index in range(100)), crf=28))) == []


def test_one_cut_is_a_warning_and_says_where(write: Callable[..., Path]) -> None:
    finding = only(found_in(scan(write(head(index, 1 if index < 60 else 2) for index in range(120)))), "cuts", "warn")
    assert finding.seconds == pytest.approx((2.4,), abs=0.05)
    assert "one cut" in finding.message


def test_many_cuts_are_no_take(write: Callable[..., Path]) -> None:
    facts = scan(write(head(index, index // 30 + 1) for index in range(120)))
    assert facts.cuts_s == pytest.approx((1.2, 2.4, 3.6), abs=0.05)
    only(found_in(facts), "cuts", "reject")
    assert found_in(facts, PictureParams(max_cuts=3))[0].severity == "warn"


def test_cuts_in_slow_footage(write: Callable[..., Path]) -> None:
    facts = scan(write((head(index, 1 if index < 30 else 2) for index in range(60)), fps=12))
    assert facts.cuts_s == pytest.approx((2.5,), abs=0.1)


@pytest.mark.parametrize(("until", "severity"), [(70, "warn"), (125, "reject")])
def test_black_stretches(write: Callable[..., Path], until: int, severity: str) -> None:
    black = np.full((HEIGHT, WIDTH, 3), 4, np.uint8)
    path = write(black if 50 <= index < until else head(index) for index in range(150))
    assert only(found_in(scan(path)), "black", severity).seconds == pytest.approx((2.0,), abs=0.05)


@pytest.mark.parametrize(("until", "severity"), [(75, "warn"), (120, "reject")])
def test_repeated_frames_are_frozen(write: Callable[..., Path], until: int, severity: str) -> None:
    path = write((head(50 if 50 <= index < until else index) for index in range(150)), crf=26)
    finding = only(found_in(scan(path)), "frozen", severity)
    assert finding.seconds == pytest.approx((2.0,), abs=0.15)


def test_a_photograph_is_frozen(write: Callable[..., Path]) -> None:
    facts = scan(write((head(0) for _ in range(75)), crf=30))
    assert only(found_in(facts), "frozen", "reject")
    assert facts.still[0].seconds > 2.5


@pytest.mark.parametrize(("sigma_px", "severity"), [(2.2, "warn"), (6.0, "reject")])
def test_blurred_faces(write: Callable[..., Path], sigma_px: float, severity: str) -> None:
    path = write(cv2.GaussianBlur(head(index), (0, 0), sigma_px) for index in range(75))
    assert only(found_in(scan(path)), "blurred", severity).seconds[0] == 0.0


def test_a_moment_of_blur_is_none(write: Callable[..., Path]) -> None:
    frames = (cv2.GaussianBlur(head(index), (0, 0), 2.5) if 40 <= index < 70 else head(index) for index in range(150))
    assert found_in(scan(write(frames))) == []


@pytest.mark.parametrize(("gain", "severity"), [(0.28, "warn"), (0.18, "reject")])
def test_dark_faces(write: Callable[..., Path], gain: float, severity: str) -> None:
    path = write((head(index) * gain).astype(np.uint8) for index in range(75))
    assert "light" in only(found_in(scan(path)), "dark", severity).message


@pytest.mark.parametrize(("gain", "severity"), [(1.85, "warn"), (4.0, "reject")])
def test_overexposed_faces(write: Callable[..., Path], gain: float, severity: str) -> None:
    frames = [np.clip(head(index) * gain, 0, 255).astype(np.uint8) for index in range(75)]
    if severity == "warn":
        for index, frame in enumerate(frames):
            frame[90:] = head(index)[90:]
    assert "overexposed" in only(found_in(scan(write(frames))), "overexposed", severity).code


def damaged(path: Path, start: float, end: float) -> Path:
    content = bytearray(path.read_bytes())
    first = content.index(b"mdat")
    length = len(content) - first
    place = slice(first + int(length * start), first + int(length * end))
    content[place] = np.random.default_rng(3).integers(0, 256, place.stop - place.start, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    return path


def test_a_moment_of_damage_is_a_warning(write: Callable[..., Path]) -> None:
    whole = write((head(index) for index in range(250)), crf=12)
    assert found_in(scan(whole)) == []
    facts = scan(damaged(whole, 0.5, 0.505))
    codes = {(finding.code, finding.severity) for finding in found_in(facts)}
    assert ("corrupt_video", "warn") in codes
    assert facts.damaged[0].start_s == pytest.approx(4.0, abs=1.5)


def test_much_damage_is_rejected(write: Callable[..., Path]) -> None:
    facts = scan(damaged(write((head(index) for index in range(150)), crf=12), 0.3, 0.8))
    finding = only([one for one in found_in(facts) if one.code != "blurred"], "corrupt_video", "reject")
    assert finding.seconds[0] < 2.5


def test_what_the_decoder_says_is_put_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    lines = ["frame:0 pts:9 pts_time:10.00", "gensync=picture", "frame:1 pts:9 pts_time:10.04", "[h264 @ 0x5581] error"]
    path.write_text("\n".join([*lines, "frame:2    pts:10     pts_time:10.4", "[mov @ 0x1] trouble", ""]))
    log = DecodingLog(0.04)
    with path.open("rb") as messages:
        log.read(messages)
    assert log.num_pictures == 3
    assert log.complaints_s == pytest.approx([0.04, 0.4])
    assert log.gaps_s == [pytest.approx((0.04, 0.4))]


def in_hdr(path: Path, transfer: str, **pixels: Any) -> Path:
    """The same code values in ten bits, said to be of another transfer characteristic."""
    target = path.with_name(f"{transfer}.mp4")
    tags = {"color_trc": transfer, "color_primaries": "bt2020", "colorspace": "bt2020nc", "color_range": "tv"}
    stream = ffmpeg_command.video_input(path).filter(
        "setparams", color_trc=transfer, color_primaries="bt2020", colorspace="bt2020nc", range="tv"
    )
    ffmpeg_command.run(ffmpeg_command.to_file([stream], target, pix_fmt="yuv420p10le", **{"c:v": "libx264"}, **tags), 60.0)
    return target


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67", "bt2020-10"])
def test_hdr_is_mapped_and_said(write: Callable[..., Path], transfer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_hdr(write(head(index) for index in range(50)), transfer)
    facts = scan(path)
    assert not facts.decoding_failed
    assert facts.looks
    codes = {(finding.code, finding.severity) for finding in found_in(facts) if finding.code == "hdr"}
    assert codes == {("hdr", "fixed" if tone_mapping.can_tone_map() else "reject")}
    monkeypatch.setattr(tone_mapping.ffmpeg_command, "known_filters", frozenset)
    (finding,) = [one for one in found_in(scan(path)) if one.code == "hdr"]
    assert finding.severity == "reject"
    assert "GENSYNC_FFMPEG" in finding.message


def test_a_file_that_is_no_video_any_more(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(head(index) for index in range(30))
    probed = probe(path)
    with pytest.raises(FootageRejected):
        scan_picture(tmp_path / "absent.mp4", probed)
    path.write_bytes(b"nothing" * 100)
    facts = scan_picture(path, probed, [FACE])
    assert facts.decoding_failed
    assert only(found_in(facts), "corrupt_video", "reject").seconds == (0.0,)


def test_one_picture_alone(write: Callable[..., Path]) -> None:
    facts = scan(write([head(0)]))
    assert len(facts.looks) == 1
    assert found_in(facts) == []


def test_tiles_hold_the_picture_and_the_region(write: Callable[..., Path]) -> None:
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[40:100, 60:120] = 200
    path = write(frame for _ in range(5))
    (tiles, *others) = list(iter_tiles(path, probe(path), SquareCrop(60, 40, 60), 25, DecodingLog(0.04)))
    assert len(others) == 4
    assert tiles.whole.shape == (96, 115, 3)
    assert tiles.region.shape == (60, 60, 3)
    assert tiles.region.min() > 190
    assert tiles.whole[:, :30].max() < 10


def test_parameters_are_checked() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"max_damaged": 2.0},
        {"good_blur": 0.9},
        {"min_bright": 100.0},
        {"good_clipped": 0.6},
        {"max_cuts": -1},
        {"min_frozen_s": 0.0},
        {"good_bright": 300.0},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"picture\."):
            PictureParams(**wrong)


@pytest.mark.footage
@pytest.mark.slow
def test_real_clips_pass(shared_data: Path) -> None:
    """Two jumps of the camera in `anchor_en_71s`, a held last frame in `odd_size_a_6s`, nothing else."""
    clips = shared_data / "clips"
    for clip in sorted(clips.glob("*.mp4")) + sorted((clips / "grid").glob("*.mpg")):
        findings = found_in(scan_picture(clip, probe(clip)))
        assert all(finding.severity == "warn" for finding in findings), (clip.name, findings)
        expected = {"anchor_en_71s.mp4": {"cuts"}, "odd_size_a_6s.mp4": {"frozen"}}.get(clip.name, set())
        assert {finding.code for finding in findings} == expected, (clip.name, findings)
