"""Each defect of how the speaker is seen is made in footage of a sample speaker, and found; without it nothing is said."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gensync_core.artefacts import read_tensors
from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME, load_waveform, write_waveform
from gensync_core.face.landmarks import detect_faces
from gensync_core.footage.findings import FaceBox, FaceSample, Finding, Footage
from gensync_core.footage.gate_params import MouthParams
from gensync_core.footage.mouth_checks import MOUTH_CHECKS, moves_the_mouth, shift_s, sounds_in_time
from gensync_core.footage.mouth_scan import MouthFacts, Spans, scan_mouth
from gensync_core.footage.sound_offset import SoundOffset
from gensync_core.media.video import VideoWriter, iter_frames, probe
from gensync_core.samples import make_sample
from gensync_core.samples.head_model import build_head, pose_head
from gensync_core.samples.portraits import PORTRAITS, take_apart
from gensync_core.samples.sample_speaker import draw_frames, find_landmarks

SIZE = 192
SECONDS = 12
PARAMS = MouthParams()
ALL_SPEECH = ((0.0, 100.0),)

Frames = list[np.ndarray]


class Talk:
    """A sample speaker's frames, landmarks in px and sound."""

    def __init__(self, folder: Path) -> None:
        files = make_sample("astronaut", folder / "talk.mp4", seconds=SECONDS, size=SIZE)
        self.frames: Frames = list(iter_frames(files.video))
        self.landmarks = read_tensors(files.truth)[0]["landmarks_px"]
        self.samples = load_waveform(files.video)[: SECONDS * FPS * SAMPLES_PER_FRAME]

    def spoken(self) -> Spans:
        """Seconds in which the synthetic voice is heard for 0.2 s around."""
        loud = np.abs(self.samples).reshape(-1, SAMPLES_PER_FRAME).max(axis=1) > 0.02
        near = np.convolve(loud, np.ones(11), mode="same") > 0
        return tuple((k / FPS, (k + 1) / FPS) for k in np.flatnonzero(near))


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return Talk(tmp_path_factory.mktemp("talk"))


@pytest.fixture
def scan(tmp_path: Path, talk: Talk) -> Callable[..., MouthFacts]:
    """Writes frames with sound, and watches them."""

    def scanned(frames: Frames, samples: np.ndarray | None = None, speech: Spans = ALL_SPEECH) -> MouthFacts:
        wav, path = tmp_path / "sound.wav", tmp_path / "footage.mp4"
        sound = talk.samples[: len(frames) * SAMPLES_PER_FRAME] if samples is None else samples
        write_waveform(wav, sound)
        height, width = frames[0].shape[:2]
        with VideoWriter(path, width, height, FPS, wav, preset="ultrafast") as writer:
            for frame in frames:
                writer.write(frame)
        return scan_mouth(footage_of(path), speech)

    return scanned


def footage_of(path: Path) -> Footage:
    samples = []
    for index, frame in enumerate(iter_frames(path, fps=2)):
        boxes = tuple(FaceBox(face.x, face.y, face.w, face.h) for face in detect_faces(frame)[:1])
        samples.append(FaceSample(index / 2, boxes))
    return Footage(path, probe(path), tuple(samples))


def findings(facts: MouthFacts) -> list[Finding]:
    return [finding for check in MOUTH_CHECKS for finding in check(facts, PARAMS)]


def said(facts: MouthFacts) -> list[tuple[str, str]]:
    return [(finding.code, finding.severity) for finding in findings(facts)]


def moved(frame: np.ndarray, right_px: float) -> np.ndarray:
    """The same picture moved to the right, its edge repeated."""
    shift = np.array([[1, 0, right_px], [0, 1, 0]], dtype=np.float64)
    return cv2.warpAffine(frame, shift, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)


def test_a_speaker_in_sync_has_no_findings(scan: Callable[..., MouthFacts], talk: Talk) -> None:
    facts = scan(talk.frames, speech=talk.spoken())
    assert findings(facts) == []
    assert len(facts.times_s) == SECONDS * FPS
    assert np.isfinite(facts.aperture).all()
    assert 0.5 < facts.spoken.mean() < 1
    truth = np.linalg.norm(talk.landmarks[:, 13, :2] - talk.landmarks[:, 14, :2], axis=1)
    assert np.corrcoef(facts.aperture, truth)[0, 1] > 0.9


def test_late_sound(scan: Callable[..., MouthFacts], talk: Talk) -> None:
    facts = scan(talk.frames, np.roll(talk.samples, round(0.24 * 16_000)), talk.spoken())
    assert facts.offset is not None
    assert facts.offset.seconds == pytest.approx(0.24, abs=0.06)
    (finding,) = findings(facts)
    assert finding.code == "audio_late"
    assert shift_s(facts, PARAMS) == (facts.offset.seconds if finding.severity == "fixed" else 0)


@pytest.mark.parametrize(("share", "severity"), [(1.0, "reject"), (0.3, "warn")])
def test_face_leaves_frame(scan: Callable[..., MouthFacts], talk: Talk, share: float, severity: str) -> None:
    frames = talk.frames[:100]
    out_px = SIZE - talk.landmarks[0, :468, 0].max() + 0.15 * np.ptp(talk.landmarks[0, :468, 1])
    away = round(share * len(frames))
    facts = scan([moved(frame, out_px) for frame in frames[:away]] + frames[away:])
    (finding,) = findings(facts)
    assert (finding.code, finding.severity) == ("face_leaves_frame", severity)
    assert finding.seconds[0] == 0.0


@pytest.mark.parametrize(("yaw_deg", "pitch_deg"), [(48.0, 0.0), (0.0, 35.0)])
def test_turned_away(scan: Callable[..., MouthFacts], talk: Talk, yaw_deg: float, pitch_deg: float) -> None:
    turned = turned_frames(yaw_deg, pitch_deg, 30)
    facts = scan(turned)
    assert said(facts)[0] == ("turned_away", "reject")
    facts = scan([*talk.frames[:100], *turned])
    assert ("turned_away", "warn") in said(facts)


def turned_frames(yaw_deg: float, pitch_deg: float, num_frames: int) -> Frames:
    portrait = PORTRAITS["astronaut"]
    landmarks = find_landmarks(portrait, SIZE)
    layers = take_apart(portrait, SIZE, landmarks)
    model = build_head(landmarks, layers.follow)
    still = model.fields.displacement(0.0, 0.55, 0.0)
    posed = pose_head(model, still, np.array([yaw_deg, pitch_deg, 0.0]), np.zeros(3))
    return list(draw_frames(model, layers, [posed], np.zeros(1, dtype=np.float32))) * num_frames


@pytest.mark.parametrize("colour", ["microphone", "hand"])
def test_mouth_hidden_for_a_while(scan: Callable[..., MouthFacts], talk: Talk, colour: str) -> None:
    facts = scan(list(covered(talk, slice(30, 80), colour))[:120])
    (finding,) = [finding for finding in findings(facts) if finding.code == "mouth_hidden"]
    assert finding.severity == "warn"
    assert finding.seconds == (1.0,)
    assert "mouth_static" not in {finding.code for finding in findings(facts)}


def covered(talk: Talk, when: slice, colour: str) -> Iterator[np.ndarray]:
    for index, (frame, landmarks) in enumerate(zip(talk.frames, talk.landmarks, strict=True)):
        picture = frame.copy()
        if when.start <= index < when.stop:
            centre = landmarks[[13, 14], :2].mean(axis=0)
            eyes_px = float(np.linalg.norm(landmarks[33, :2] - landmarks[263, :2]))
            cheek = frame[int(landmarks[50, 1]), int(landmarks[50, 0])]
            shade = (25, 25, 28) if colour == "microphone" else tuple(int(0.92 * value) for value in cheek)
            axes = (round(0.6 * eyes_px), round(0.4 * eyes_px))
            cv2.ellipse(picture, (round(float(centre[0])), round(float(centre[1]))), axes, 0, 0, 360, shade, -1)
        yield picture


def test_mouth_static_all_the_time(scan: Callable[..., MouthFacts], talk: Talk) -> None:
    frozen = [moved(talk.frames[0], np.sin(index / 10)) for index in range(100)]
    (finding,) = [finding for finding in findings(scan(frozen)) if finding.code != "audio_late"]
    assert (finding.code, finding.severity) == ("mouth_static", "reject")
    assert said(scan(frozen, speech=())) == []


def test_mouth_static_for_a_while(scan: Callable[..., MouthFacts], talk: Talk) -> None:
    (finding,) = findings(scan([*talk.frames[:75], *[talk.frames[75]] * 75]))
    assert (finding.code, finding.severity) == ("mouth_static", "warn")
    assert finding.seconds in {(2.0,), (3.0,)}


def made_up(num_frames: int = 200, **changes: object) -> MouthFacts:
    frames = np.arange(num_frames)
    facts = MouthFacts(
        times_s=frames / FPS,
        yaw_deg=np.zeros(num_frames),
        pitch_deg=np.zeros(num_frames),
        beyond=np.full(num_frames, -0.2),
        lip_redness=np.full(num_frames, 9.0),
        skin_chroma=np.full(num_frames, 20.0),
        aperture=0.1 + 0.05 * np.sin(frames),
        spoken=np.ones(num_frames, dtype=bool),
        sampled_s=np.arange(0, num_frames / FPS, 0.5),
        sampled_beyond=np.full(len(np.arange(0, num_frames / FPS, 0.5)), -0.2),
        offset=SoundOffset(0.02, 9.0, 0.4),
    )
    return replace(facts, **changes)  # pyright: ignore[reportArgumentType]


def test_only_certain_offsets_shift_the_sound() -> None:
    assert said(made_up()) == []
    assert said(made_up(offset=None)) == []
    for offset, expected, moved_s in (
        (SoundOffset(0.24, 9.0, 0.4), [("audio_late", "fixed")], 0.24),
        (SoundOffset(-0.2, 9.0, 0.4), [("audio_early", "fixed")], -0.2),
        (SoundOffset(0.24, 3.8, 0.2), [("audio_late", "warn")], 0.0),
        (SoundOffset(0.24, 2.0, 0.2), [], 0.0),
        (SoundOffset(0.1, 9.0, 0.4), [], 0.0),
    ):
        facts = made_up(offset=offset)
        assert said(facts) == expected
        assert shift_s(facts, PARAMS) == moved_s
    (finding,) = sounds_in_time(made_up(offset=SoundOffset(0.24, 9.0, 0.4)), PARAMS)
    assert "0.24 s" in finding.message


def test_lips_are_not_judged_in_black_and_white() -> None:
    pale = np.where(np.arange(200) < 50, 0.0, 9.0)
    assert said(made_up(lip_redness=pale)) == [("mouth_hidden", "warn")]
    assert said(made_up(lip_redness=pale, skin_chroma=np.full(200, 1.0))) == []
    assert said(made_up(lip_redness=np.where(np.arange(200) < 5, 0.0, 9.0))) == []


def test_stillness_counts_in_unbroken_speech_alone() -> None:
    still = np.full(200, 0.1)
    assert [finding.severity for finding in moves_the_mouth(made_up(aperture=still), PARAMS)] == ["reject"]
    words = np.arange(200) % 40 < 30
    assert list(moves_the_mouth(made_up(aperture=still, spoken=words), PARAMS)) == []
    jump_s = np.arange(200) // 40 * 10 + np.arange(200) / FPS
    assert list(moves_the_mouth(made_up(aperture=still, times_s=jump_s), PARAMS)) == []


def test_a_border_is_crossed_where_only_faces_were_sampled() -> None:
    away = np.full(16, -0.2)
    away[12:] = 0.1
    (finding,) = findings(made_up(sampled_beyond=away))
    assert (finding.code, finding.severity, finding.seconds) == ("face_leaves_frame", "warn", (6.0,))


def test_nothing_is_said_where_nobody_was_followed() -> None:
    nothing = np.full(200, np.nan)
    unseen = {name: nothing for name in ("yaw_deg", "pitch_deg", "beyond", "lip_redness", "skin_chroma", "aperture")}
    assert said(made_up(200, **unseen, offset=None)) == []
    assert said(made_up(0, offset=None)) == []


def test_long_footage_is_watched_where_most_is_said(
    talk: Talk, scan: Callable[..., MouthFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gensync_core.footage.mouth_scan.WATCHED_S", 3.0)
    facts = scan(talk.frames, speech=((1.0, 2.5), (6.0, 7.0), (11.0, 12.0)))
    begins = facts.times_s[np.diff(facts.times_s, prepend=-1.0) > 0.5]
    np.testing.assert_allclose(begins, [1.0, 6.0, 11.0], atol=1e-6)
    assert len(facts.times_s) == 3 * FPS


def test_parameters_are_checked() -> None:
    for wrong in (
        {"max_beyond": 2.0},
        {"max_yaw_deg": 0.0},
        {"max_share": 1.5},
        {"worth_a_warning": 0.9},
        {"min_motion": -1.0},
        {"min_offset_s": 0.0},
        {"min_certainty": 9.0},
    ):
        with pytest.raises(ValueError, match="mouth"):
            MouthParams(**wrong)


@pytest.mark.footage
@pytest.mark.slow
def test_real_late_sound_is_found_and_a_real_speaker_in_sync_is_not_rejected(shared_data: Path) -> None:
    late = scan_mouth(footage_of(shared_data / "clips" / "late_audio_15s.mp4"), ALL_SPEECH)
    assert said(late) == [("audio_late", "fixed")]
    assert 0.16 <= shift_s(late, PARAMS) <= 0.28
    assert said(scan_mouth(footage_of(shared_data / "clips" / "radio_en_8s.mp4"), ALL_SPEECH)) == []
