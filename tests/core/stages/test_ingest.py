"""ingest writes a whole clip with its sound and findings, or nothing."""

import json
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import made_up_footage
import numpy as np
import pytest

from gensync_core.artefacts import read_json, sha256_of
from gensync_core.errors import ArtefactBroken, FootageRejected
from gensync_core.footage.findings import FaceBox
from gensync_core.footage.gate_params import GateParams
from gensync_core.media.video import IngestParams, VideoWriter, iter_frames, probe
from gensync_core.params import Params
from gensync_core.paths import Project
from gensync_core.progress import Tick, use_sink
from gensync_core.speakers import Registry, Speaker
from gensync_core.stages import check, ingest

NAME = "alice"


def params_with(**ingest_params: Any) -> Params:
    """Parameters of which only the sections that ingest reads are filled."""
    params = object.__new__(Params)
    object.__setattr__(params, "gate", GateParams(min_face_px=24))
    object.__setattr__(params, "ingest", IngestParams(resolution=64, **ingest_params))
    return params


def face_in_the_middle(frame: np.ndarray) -> list[FaceBox]:
    height, width = frame.shape[:2]
    return [FaceBox(width * 0.5, height * 0.3, height * 0.3, height * 0.3)]


def see(monkeypatch: pytest.MonkeyPatch, faces: Callable[[np.ndarray], Sequence[Any]], sound_late_s: float = 0.0) -> None:
    """The gate finds these faces and this offset, and otherwise nothing wrong with what is seen and heard."""
    made_up = made_up_footage.senses(faces, sound_late_s)
    monkeypatch.setattr("gensync_core.footage.gate.Senses", lambda: made_up)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    see(monkeypatch, face_in_the_middle)
    return Project(tmp_path / "project")


@pytest.fixture
def onboard(project: Project, tmp_path: Path) -> Callable[..., Path]:
    """Puts made-up footage into the project."""

    def put(*, seconds: float = 3.0, sound_s: float | None = 3.5, content: bytes | None = None) -> Path:
        raw = project.raw(NAME, ".mp4")
        raw.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            raw.write_bytes(content)
        else:
            write_footage(raw, seconds, sound_s, tmp_path / "sound.wav")
        register(project, raw)
        return raw

    return put


def register(project: Project, raw: Path) -> None:
    speaker = Speaker(id=NAME, raw=str(raw.relative_to(project.root)), sha256=sha256_of(raw), group="cohort")
    Registry({NAME: speaker}).save(project.speakers_file)


def write_footage(path: Path, seconds: float, sound_s: float | None, wav: Path) -> None:
    if sound_s is not None:
        tone = 0.3 * np.sin(np.arange(round(sound_s * 16000)) * 0.1)
        with wave.open(str(wav), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((tone * 32767).astype("<i2").tobytes())
    frame = np.tile(np.linspace(0, 255, 240, dtype=np.uint8)[None, :, None], (160, 1, 3))
    with VideoWriter(path, 240, 160, 25, None if sound_s is None else wav, preset="ultrafast") as writer:
        for index in range(round(seconds * 25)):
            writer.write(np.roll(frame, index, axis=0))


def outputs(project: Project) -> Sequence[Path]:
    paths = project.speaker(project.registry().get(NAME))
    return paths.clip, paths.wav, paths.clip_json


def run(project: Project, **ingest_params: Any) -> None:
    ingest.run(project, NAME, params_with(**ingest_params))


def test_clip_sound_and_findings(project: Project, onboard: Callable[..., Path]) -> None:
    raw = onboard()
    run(project)
    clip, wav, clip_json = outputs(project)
    content = read_json(clip_json)
    assert content["speaker"] == NAME
    assert content["source"]["sha256"] == sha256_of(raw)
    assert content["source"]["name"] == "alice.mp4"
    assert (content["fps"], content["num_frames"], content["resolution"]) == (25, 75, 64)
    assert content["duration_s"] == pytest.approx(3.0)
    assert [finding["code"] for finding in content["findings"]] == ["audio_longer_than_video"]
    crop = content["crop"]
    assert crop["size"] == 114  # 2.4 times the face's 48 px, even
    assert crop["x"] + crop["size"] / 2 == pytest.approx(144, abs=2)
    found = probe(clip)
    assert (found.num_frames, found.width, found.height) == (75, 64, 64)
    with wave.open(str(wav)) as file:
        assert file.getnframes() == 75 * 640
    # A ramp over the whole width: the crop's position is seen in its brightness.
    middle = next(iter_frames(clip))[32, 32, 0]
    assert middle == pytest.approx((crop["x"] + crop["size"] / 2) / 239 * 255, abs=6)


def test_late_sound_is_shifted_to_its_pictures(
    project: Project, onboard: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A click at 1.2 s that belongs to what is seen at 1.0 s."""
    raw = onboard()
    clicks = np.zeros(round(3.0 * 16000), dtype="<i2")
    clicks[round(1.2 * 16000) : round(1.21 * 16000)] = 20_000
    with wave.open(str(project.root.parent / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(clicks.tobytes())
    with VideoWriter(raw, 240, 160, 25, project.root.parent / "sound.wav", preset="ultrafast") as writer:
        for _ in range(75):
            writer.write(np.zeros((160, 240, 3), dtype=np.uint8))
    register(project, raw)
    see(monkeypatch, face_in_the_middle, sound_late_s=0.2)
    run(project)
    content = read_json(outputs(project)[2])
    assert content["source"]["sound_late_s"] == 0.2
    assert "audio_late" in {finding["code"] for finding in content["findings"]}
    with wave.open(str(outputs(project)[1])) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    assert len(samples) == content["num_frames"] * 640
    assert np.argmax(np.abs(samples) > 5_000) / 16000 == pytest.approx(1.0, abs=0.01)


def test_twice_gives_the_same_bytes(project: Project, onboard: Callable[..., Path]) -> None:
    onboard()
    digests = []
    for _ in range(2):
        run(project)
        digests.append([sha256_of(path) for path in outputs(project)])
        for path in outputs(project):
            path.unlink()
    assert digests[0] == digests[1]


def test_a_cap_is_said(project: Project, onboard: Callable[..., Path]) -> None:
    onboard()
    run(project, max_seconds=2)
    content = read_json(outputs(project)[2])
    assert content["num_frames"] == 50
    assert "cut_to_max_seconds" in {finding["code"] for finding in content["findings"]}


@pytest.mark.parametrize(
    ("footage", "complaint"),
    [
        ({"content": b""}, "empty"),
        ({"content": b"hello, I am a text\n" * 50}, "not a video"),
        ({"content": b"ffconcat version 1.0\nfile other.mp4\n"}, "not a video"),
        ({"sound_s": None}, "no sound"),
        ({"seconds": 1.0, "sound_s": 1.0}, "at least 2.5 s"),
    ],
)
def test_rejected_footage_leaves_nothing(
    project: Project, onboard: Callable[..., Path], footage: dict[str, Any], complaint: str
) -> None:
    raw = onboard(**footage)
    with pytest.raises(FootageRejected, match=complaint) as caught:
        run(project)
    assert str(raw) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not outputs(project)[0].parent.exists()


def test_footage_that_was_exchanged_is_refused(project: Project, onboard: Callable[..., Path]) -> None:
    raw = onboard()
    raw.write_bytes(raw.read_bytes() + b"\0")
    with pytest.raises(ArtefactBroken, match="not the file that was onboarded"):
        run(project)
    raw.unlink()
    with pytest.raises(ArtefactBroken, match="cannot be read"):
        run(project)


def test_a_failure_while_cutting_leaves_nothing(
    project: Project, onboard: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    onboard()
    monkeypatch.setattr("gensync_core.media.clip_cutting._sound", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(project)
    assert list(outputs(project)[0].parent.iterdir()) == []


def test_progress_ends_complete(project: Project, onboard: Callable[..., Path]) -> None:
    onboard()
    ticks: list[Tick] = []
    use_sink(ticks.append)
    try:
        run(project)
    finally:
        use_sink(None)
    last = {tick.job: tick for tick in ticks}
    assert set(last) == {"faces alice.mp4", "ingest alice"}
    assert all(tick.done == tick.total for tick in last.values())


def test_check_answers_in_json(project: Project, onboard: Callable[..., Path]) -> None:
    report = check.check(project, onboard(), params_with())
    content = json.loads(json.dumps(report.to_json()))
    assert content["rejected"] is False
    assert content["probe"]["num_frames"] == 75
    assert content["findings"][0]["severity"] == "fixed"
    assert check.check(project, onboard(content=b"text"), params_with()).to_json()["rejected"] is True
    assert not project.gate_reports.exists()  # this folder is no project


def test_what_the_gate_saw_before_onboarding_is_not_looked_at_again(
    project: Project, onboard: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.params_file.parent.mkdir(parents=True, exist_ok=True)
    project.params_file.touch()
    told = check.check(project, onboard(), params_with())

    def look(frame: np.ndarray) -> Sequence[Any]:
        raise AssertionError("looked at again")

    see(monkeypatch, look)
    run(project)
    assert read_json(outputs(project)[2])["findings"] == told.to_json()["findings"]


def test_a_real_face_is_found_and_centred(
    project: Project, onboard: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real detector on a public-domain portrait in a wide frame."""
    pytest.importorskip("mediapipe")
    from skimage.data import astronaut

    from gensync_core.face.landmarks import detect_faces

    see(monkeypatch, detect_faces)
    raw = onboard()
    portrait = np.zeros((512, 900, 3), dtype=np.uint8) + np.uint8(90)
    portrait[:, 300:812] = astronaut()
    with VideoWriter(raw, 900, 512, 25, project.root.parent / "sound.wav", preset="ultrafast") as writer:
        for _ in range(75):
            writer.write(portrait)
    register(project, raw)
    run(project)
    crop = read_json(outputs(project)[2])["crop"]
    centre = crop["x"] + crop["size"] / 2, crop["y"] + crop["size"] / 2
    assert centre[0] == pytest.approx(300 + 224, abs=25)  # the nose is at (224, 115) of the portrait
    assert 150 < crop["size"] < 420
    assert crop["y"] == 0 or centre[1] == pytest.approx(120, abs=40)
