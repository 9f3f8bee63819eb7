"""Every kind of bad footage gets its code and one clear line; footage that can be mended passes and is said to be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_footage import MOUTH, PICTURE, SOUND
from made_up_footage import senses as good_senses

from gensync_core.errors import FootageRejected
from gensync_core.footage import gate
from gensync_core.footage.findings import FaceBox, Footage
from gensync_core.footage.gate import Senses
from gensync_core.footage.gate_params import GateParams
from gensync_core.footage.mouth_scan import MouthFacts
from gensync_core.footage.picture_scan import PictureFacts
from gensync_core.footage.sound_offset import SoundOffset
from gensync_core.media.probe import Probe

PARAMS = GateParams(min_face_px=24)


def check_footage(path: Path, params: GateParams, faces: Callable[[np.ndarray], list[FaceBox]]) -> gate.GateReport:
    """The gate with made-up faces, where nothing is wrong with what is seen and heard otherwise."""
    return gate.check_footage(path, params, good_senses(faces))


def one_face(frame: np.ndarray) -> list[FaceBox]:
    height, width = frame.shape[:2]
    return [FaceBox(width / 4, height / 4, width / 3, height / 3)]


def two_faces(frame: np.ndarray) -> list[FaceBox]:
    height, width = frame.shape[:2]
    return [*one_face(frame), FaceBox(width * 0.6, height / 4, width / 3, height / 3)]


def nobody(frame: np.ndarray) -> list[FaceBox]:
    return []


def never_asked(frame: np.ndarray) -> list[FaceBox]:
    raise AssertionError("faces were counted in footage that is rejected anyway")


def test_good_footage_has_no_findings(make_clip: Callable[..., Path]) -> None:
    report = check_footage(make_clip(), PARAMS, one_face)
    assert report.findings == ()
    assert not report.rejected
    report.raise_if_rejected()
    assert len(report.samples) == 8
    assert report.speaker_faces[0].h == pytest.approx(128 / 3)
    content = report.to_json()
    assert content["rejected"] is False
    assert content["faces"] == {"sampled": 8, "without": 0, "several": 0, "median_height_px": pytest.approx(128 / 3)}


def write_empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def write_text(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("This is no video.\n" * 100)
    return path


@pytest.mark.parametrize("write", [write_empty, write_text, lambda folder: folder / "absent.mp4"])
def test_what_is_no_video_is_unreadable(write: Callable[[Path], Path], tmp_path: Path) -> None:
    report = check_footage(write(tmp_path), PARAMS, never_asked)
    assert report.codes() == {"unreadable"}
    assert report.probe is None
    with pytest.raises(FootageRejected) as caught:
        report.raise_if_rejected()
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(report.path)) == 1


def test_video_without_sound(make_clip: Callable[..., Path]) -> None:
    report = check_footage(make_clip(sound_s=None), PARAMS, never_asked)
    assert report.rejected
    assert report.codes() == {"no_audio"}


def test_sound_without_video(make_wav: Callable[..., Path]) -> None:
    wav = make_wav(4.0)
    for path in (wav, wav.with_suffix(".mp4")):
        path.write_bytes(wav.read_bytes())
        report = check_footage(path, PARAMS, never_asked)
        assert report.codes() == {"no_video"}
        assert report.rejected


def test_one_second_is_too_short(make_clip: Callable[..., Path]) -> None:
    report = check_footage(make_clip(seconds=1, sound_s=1.0), PARAMS, never_asked)
    assert report.rejected
    assert report.codes() == {"too_short"}


def test_only_time_with_pictures_and_sound_counts(make_clip: Callable[..., Path]) -> None:
    report = check_footage(make_clip(seconds=1, sound_s=6.0), PARAMS, never_asked)
    assert "too_short" in report.codes()


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_file_with_its_index_at_the_front(make_clip: Callable[..., Path], share: float) -> None:
    path = make_clip()
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    path.write_bytes(content[: int(len(content) * share)])
    report = check_footage(path, PARAMS, never_asked)
    assert report.rejected
    assert report.codes() >= {"truncated"}
    (finding,) = [finding for finding in report.findings if finding.code == "truncated"]
    assert 0 < finding.seconds[0] < 4


def test_truncated_file_without_its_index(make_clip: Callable[..., Path]) -> None:
    path = make_clip()
    content = path.read_bytes()
    for length in (content.index(b"moov") - 4, content.index(b"moov") + 100):
        path.write_bytes(content[:length])
        report = check_footage(path, PARAMS, never_asked)
        assert report.rejected
        assert report.codes() == {"truncated"}


def test_truncated_matroska(make_variable_rate_clip: Callable[[], Path]) -> None:
    path = make_variable_rate_clip()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "truncated" in check_footage(path, PARAMS, never_asked).codes()


def test_odd_sizes_pass(make_clip: Callable[..., Path]) -> None:
    assert check_footage(make_clip(width=161, height=127), PARAMS, one_face).findings == ()


def test_variable_frame_rate_is_mended_and_said(make_variable_rate_clip: Callable[[], Path]) -> None:
    report = check_footage(make_variable_rate_clip(), PARAMS, one_face)
    assert not report.rejected
    assert {(finding.code, finding.severity) for finding in report.findings} == {("variable_frame_rate", "fixed")}


def test_other_frame_rates_are_resampled_and_said(make_clip: Callable[..., Path]) -> None:
    assert check_footage(make_clip("a.mp4", fps=30), PARAMS, one_face).codes() == {"frame_rate_resampled"}
    slow = check_footage(make_clip("b.mp4", fps=15), PARAMS, one_face)
    assert slow.codes() == {"frame_rate_resampled", "low_frame_rate"}
    assert not slow.rejected
    assert check_footage(make_clip("c.mp4", fps=5), PARAMS, never_asked).rejected


@pytest.mark.parametrize(
    ("seconds", "sound_s", "code"), [(4.0, 6.0, "audio_longer_than_video"), (6.0, 4.0, "video_longer_than_audio")]
)
def test_unequal_streams_are_trimmed_and_said(
    make_clip: Callable[..., Path], seconds: float, sound_s: float, code: str
) -> None:
    report = check_footage(make_clip(seconds=seconds, sound_s=sound_s), PARAMS, one_face)
    assert [(finding.code, finding.severity) for finding in report.findings] == [(code, "fixed")]
    assert "at the end" in report.findings[0].message
    assert "beginning" not in report.findings[0].message


def test_turned_footage_is_said(make_clip: Callable[..., Path], rotate: Callable[[Path], Path]) -> None:
    report = check_footage(rotate(make_clip()), PARAMS, one_face)
    assert report.codes() == {"rotated"}
    assert not report.rejected


def test_sizes_out_of_range(make_clip: Callable[..., Path]) -> None:
    assert check_footage(make_clip(width=64, height=64), PARAMS, never_asked).codes() == {"too_small"}
    assert check_footage(make_clip(), GateParams(max_pixels=1000), never_asked).codes() == {"too_many_pixels"}


def test_a_huge_frame_is_refused_undecoded(make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip()
    monkeypatch.setattr("gensync_core.media.probe.MAX_PIXELS", 1000)
    monkeypatch.setattr("gensync_core.media.ffmpeg_command.MAX_PIXELS", 1000)
    assert check_footage(path, GateParams(max_pixels=1000), never_asked).rejected
    with pytest.raises(FootageRejected):
        list(gate.iter_frames(path))


def test_who_is_seen(make_clip: Callable[..., Path]) -> None:
    path = make_clip()
    empty = check_footage(path, PARAMS, nobody)
    assert empty.rejected
    assert empty.codes() == {"no_face"}
    assert empty.findings[0].seconds == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
    crowd = check_footage(path, PARAMS, two_faces)
    assert crowd.rejected
    assert crowd.codes() == {"several_faces"}
    far = check_footage(path, GateParams(min_face_px=64), one_face)
    assert far.rejected
    assert far.codes() == {"face_too_small"}


def test_a_second_person_for_a_moment_is_a_warning(make_clip: Callable[..., Path]) -> None:
    calls = iter(range(100))
    report = check_footage(make_clip(), PARAMS, lambda frame: two_faces(frame) if next(calls) == 3 else one_face(frame))
    assert [(finding.code, finding.severity, finding.seconds) for finding in report.findings] == [
        ("several_faces", "warn", (1.5,))
    ]


def test_a_poster_in_the_background_is_nobody(make_clip: Callable[..., Path]) -> None:
    poster = FaceBox(0.0, 0.0, 10.0, 10.0)
    assert check_footage(make_clip(), PARAMS, lambda frame: [poster, *one_face(frame)]).findings == ()


def test_boxes_are_in_pixels_of_the_footage(make_clip: Callable[..., Path]) -> None:
    seen: list[tuple[int, ...]] = []

    def face(frame: np.ndarray) -> list[FaceBox]:
        seen.append(frame.shape)
        return one_face(frame)

    report = check_footage(make_clip(width=1280, height=320), PARAMS, face)
    assert set(seen) == {(160, 640, 3)}
    assert report.speaker_faces[0] == FaceBox(320.0, 80.0, 1280 / 3, 320 / 3)


def test_parameters_are_checked() -> None:
    for wrong in ({"max_missing": 2.0}, {"min_seconds": 0.0}, {"min_fps": 30.0}, {"max_pixels": 10**9}, {"max_samples": 0}):
        with pytest.raises(ValueError, match="gate"):
            GateParams(**wrong)


@pytest.mark.footage
def test_real_clips_pass(shared_data: Path) -> None:
    clips = sorted((shared_data / "clips").glob("*.mp4")) + sorted((shared_data / "clips" / "grid").glob("*.mpg"))[:3]
    for clip in clips:
        # One sampled frame: what is tested is the streams, and a face is put into it.
        report = check_footage(clip, GateParams(max_samples=1), one_face)
        assert not report.rejected, (clip.name, report.findings)


@pytest.mark.parametrize(
    ("senses", "code"),
    [
        (Senses(one_face, sound=lambda *_: replace(SOUND, loudest_dbfs=-90.0)), "silent_audio"),
        (
            Senses(
                one_face,
                lambda *_: replace(PICTURE, cuts_s=tuple(map(float, range(9)))),
                lambda *_: SOUND,
            ),
            "cuts",
        ),
    ],
)
def test_what_costs_more_is_left_out_once_footage_is_rejected(
    make_clip: Callable[..., Path], senses: Senses, code: str
) -> None:
    def asked(*_: object) -> MouthFacts:
        raise AssertionError("the mouth was watched in footage that is rejected anyway")

    report = gate.check_footage(make_clip(), PARAMS, senses._replace(mouth=asked))
    assert [(finding.code, finding.severity) for finding in report.findings] == [(code, "reject")]


@pytest.mark.parametrize(("certainty", "late_s"), [(9.0, 0.24), (3.6, 0.0)])
def test_a_sound_that_is_certainly_late_is_to_be_shifted(
    make_clip: Callable[..., Path], certainty: float, late_s: float
) -> None:
    facts = replace(MOUTH, offset=SoundOffset(0.24, certainty, 0.5))
    report = gate.check_footage(
        make_clip(),
        PARAMS,
        Senses(one_face, lambda *_: PICTURE, lambda *_: SOUND, lambda *_: facts),
    )
    assert report.codes() == {"audio_late"}
    assert not report.rejected
    assert report.sound_late_s == report.to_json()["sound_late_s"] == late_s


def test_where_speech_is_heard_and_whose_face_it_is_are_handed_on(make_clip: Callable[..., Path]) -> None:
    def mouth(footage: Footage, speech: object) -> MouthFacts:
        assert len(footage.samples) == 8
        assert speech == SOUND.speech
        return MOUTH

    def picture(_path: Path, found: Probe, faces: list[FaceBox]) -> PictureFacts:
        assert found.num_frames == 100
        assert len(faces) == 8
        return PICTURE

    assert gate.check_footage(make_clip(), PARAMS, Senses(one_face, picture, lambda *_: SOUND, mouth)).findings == ()
