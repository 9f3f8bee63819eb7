"""Every defect of the sound gets its code and no other; sound as people record it gets none."""

import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from gensync_core.footage.findings import Finding
from gensync_core.footage.gate_params import SoundParams
from gensync_core.footage.sound_checks import SOUND_CHECKS
from gensync_core.footage.sound_scan import SILENCE_DBFS, SoundFacts, scan_sound
from gensync_core.footage.tone_steadiness import ToneSteadiness
from gensync_core.footage.voice_activity import CHUNK_SAMPLES, VoiceActivity
from gensync_core.media.probe import probe
from gensync_core.media.video import VideoWriter
from gensync_core.samples.speech import synthetic_speech

RATE_HZ = 16_000
PARAMS = SoundParams()
FRAME = np.full((32, 32, 3), 90, dtype=np.uint8)

Film = Callable[..., Path]


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """8 s of speech, peaks at half of full scale."""
    return synthetic_speech(8, 0, "a").samples


def write_wav(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.ndim)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Puts pictures over sound [N] or [N, 2], as AAC in MP4."""

    def make(samples: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
        write_wav(tmp_path / "sound.wav", samples, rate_hz)
        path = tmp_path / "film.mp4"
        with VideoWriter(path, 32, 32, 25, tmp_path / "sound.wav", preset="ultrafast") as writer:
            for _ in range(round(len(samples) / rate_hz * 25)):
                writer.write(FRAME)
        return path

    return make


@pytest.fixture
def film_with_starts(tmp_path: Path) -> Film:
    """Pictures and uncompressed sound that begin at given times of the file's clock."""

    def make(samples: np.ndarray, picture_start_s: float, sound_start_s: float) -> Path:
        path = tmp_path / f"film_{picture_start_s}_{sound_start_s}.mkv"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            audio = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
            for index in range(round(len(samples) / RATE_HZ * 25)):
                frame = av.VideoFrame.from_ndarray(FRAME, format="rgb24")
                frame.pts, frame.time_base = round(1000 * picture_start_s) + index * 40, Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            for at in range(0, len(samples), 1600):
                block = np.round(samples[None, at : at + 1600] * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.rate, frame.time_base = RATE_HZ, Fraction(1, RATE_HZ)
                frame.pts = round(sound_start_s * RATE_HZ) + at
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        return path

    return make


def heard(path: Path) -> SoundFacts:
    return scan_sound(path, probe(path))


def findings(facts: SoundFacts, params: SoundParams = PARAMS) -> list[Finding]:
    return [finding for check in SOUND_CHECKS for finding in check(facts, params)]


def codes(facts: SoundFacts) -> list[tuple[str, str]]:
    return [(finding.code, finding.severity) for finding in findings(facts)]


def level_db(samples: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(samples**2)))


def chords(num_samples: int) -> np.ndarray:
    """Held organ chords, a new one every two seconds; mean power 1."""
    time_s = np.arange(num_samples) / RATE_HZ
    sound = np.zeros(num_samples)
    for number, root_hz in enumerate((220.0, 196.0, 174.6, 246.9)):
        place = (time_s // 2 % 4) == number
        for tone_hz in (root_hz, root_hz * 1.26, root_hz * 1.498):
            for overtone in range(1, 7):
                sound[place] += np.sin(2 * np.pi * tone_hz * overtone * time_s[place]) / overtone
    return sound / sound.std()


def test_speech_alone_has_no_findings(film: Film, talk: np.ndarray) -> None:
    facts = heard(film(talk))
    assert findings(facts) == []
    assert facts.seconds == pytest.approx(8.0, abs=0.1)
    assert facts.speech_dbfs == pytest.approx(level_db(talk), abs=2)
    assert facts.background_dbfs < -65
    assert max(facts.overdriven) == 0
    assert len(facts.overdriven) == 8
    assert len(facts.steadiness) == 5


def test_speech_is_found_where_it_is(film: Film, talk: np.ndarray) -> None:
    spoken = np.flatnonzero(np.abs(talk) > 0.02) / RATE_HZ
    silence = np.zeros(3 * RATE_HZ)
    facts = heard(film(np.concatenate([silence, talk, silence])))
    assert facts.speech[0][0] == pytest.approx(3 + spoken[0], abs=0.15)
    assert facts.speech[-1][1] == pytest.approx(3 + spoken[-1], abs=0.25)
    assert all(begin < end for begin, end in facts.speech)
    assert facts.speech_s == pytest.approx(sum(end - begin for begin, end in facts.speech))
    assert 0.45 < facts.speech_share < 0.58
    assert findings(facts) == []


@pytest.mark.parametrize(("picture_start_s", "sound_start_s", "start_s"), [(1.0, 0.0, 0.0), (0.0, 0.72, 0.72)])
def test_times_count_from_the_first_picture(
    film_with_starts: Film, talk: np.ndarray, picture_start_s: float, sound_start_s: float, start_s: float
) -> None:
    samples = np.concatenate([np.zeros(2 * RATE_HZ), talk[: 4 * RATE_HZ]])
    together = heard(film_with_starts(samples, 0.0, 0.0))
    apart = heard(film_with_starts(samples, picture_start_s, sound_start_s))
    shift_s = sound_start_s - picture_start_s
    assert together.start_s == 0
    assert apart.start_s == pytest.approx(start_s, abs=0.001)
    assert apart.seconds == pytest.approx(5.0 if picture_start_s else 6.0 - sound_start_s, abs=0.05)
    assert apart.speech[0][0] == pytest.approx(together.speech[0][0] + shift_s, abs=0.04)


def test_the_same_sound_gives_the_same_facts_and_threads_are_left_alone(film: Film, talk: np.ndarray) -> None:
    path, before = film(talk), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        first = heard(path)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert heard(path) == first
    finally:
        torch.set_num_threads(before)


def test_silent_audio(film: Film, talk: np.ndarray) -> None:
    digital = heard(film(np.zeros(4 * RATE_HZ)))
    assert digital.loudest_dbfs == SILENCE_DBFS
    assert digital.speech == ()
    assert digital.speech_dbfs is None
    assert codes(digital) == [("silent_audio", "reject")]
    hiss = np.random.default_rng(0).standard_normal(4 * RATE_HZ) * 10 ** (-75 / 20)
    assert codes(heard(film(hiss))) == [("silent_audio", "reject")]


def test_hardly_any_speech(film: Film) -> None:
    hiss = np.random.default_rng(0).standard_normal(6 * RATE_HZ) * 0.01
    assert codes(heard(film(hiss))) == [("little_speech", "reject")]


def test_little_speech(film: Film, talk: np.ndarray) -> None:
    facts = heard(film(np.concatenate([np.zeros(3 * RATE_HZ), talk[: 2 * RATE_HZ], np.zeros(5 * RATE_HZ)])))
    (finding,) = findings(facts)
    assert (finding.code, finding.severity) == ("little_speech", "warn")
    assert finding.seconds[0] == pytest.approx(3.4, abs=0.2)


def test_quiet_audio(film: Film, talk: np.ndarray) -> None:
    facts = heard(film(talk * 10 ** (-30 / 20)))
    assert codes(facts) == [("quiet_audio", "warn")]
    assert facts.speech_dbfs == pytest.approx(level_db(talk) - 30, abs=2)
    assert facts.speech_share > 0.6


def test_clipped_audio(film: Film, talk: np.ndarray) -> None:
    loud = np.clip(talk * 20, -1, 1)  # coding rounds many of the flat peaks off again
    loud[: 2 * RATE_HZ] = talk[: 2 * RATE_HZ]
    (finding,) = findings(heard(film(loud)))
    assert (finding.code, finding.severity) == ("clipped_audio", "warn")
    assert set(finding.seconds) <= {2, 3, 4, 5, 6, 7}
    assert len(finding.seconds) >= 4


def test_one_clipped_channel_is_seen_though_mixing_hides_it(film: Film, talk: np.ndarray) -> None:
    fine = np.repeat(talk, 3)  # 48 kHz
    facts = heard(film(np.stack([fine * 0.2, np.clip(fine * 8, -1, 1)], axis=1), rate_hz=3 * RATE_HZ))
    assert codes(facts) == [("clipped_audio", "warn")]
    assert len(facts.overdriven) == 8


def test_short_peaks_at_full_scale_are_not_clipping(film: Film, talk: np.ndarray) -> None:
    assert findings(heard(film(talk / np.abs(talk).max()))) == []


def test_a_clipped_second_of_many_is_nothing(talk: np.ndarray) -> None:
    facts = SoundFacts(
        start_s=0.0,
        seconds=60.0,
        speech=((0.0, 50.0),),
        loudest_dbfs=-15.0,
        speech_dbfs=-20.0,
        background_dbfs=-60.0,
        overdriven=(0.01, *[0.0] * 59),
        steadiness=(0.2,) * 45,
    )
    assert findings(facts) == []
    assert [finding.code for finding in findings(facts, SoundParams(max_overdriven_seconds=0.01))] == ["clipped_audio"]


def test_noisy_audio(film: Film, talk: np.ndarray) -> None:
    noise = np.random.default_rng(0).standard_normal(len(talk)) * 10 ** (level_db(talk) / 20)
    facts = heard(film(0.7 * (talk + noise * 10 ** (-6 / 20))))
    assert codes(facts) == [("noisy_audio", "warn")]
    assert facts.speech_dbfs is not None
    assert facts.speech_dbfs - facts.background_dbfs == pytest.approx(7, abs=2.5)
    faint = heard(film(0.7 * (talk + noise * 10 ** (-20 / 20))))
    assert findings(faint) == []


def test_music_under_speech(film: Film, talk: np.ndarray) -> None:
    bed = chords(len(talk)) * 10 ** ((level_db(talk) - 10) / 20)
    (finding,) = findings(heard(film(0.7 * (talk + bed))))
    assert (finding.code, finding.severity) == ("music", "warn")


def test_music_before_speech_is_said_once_and_where(film: Film, talk: np.ndarray) -> None:
    (finding,) = findings(heard(film(np.concatenate([talk, 0.2 * chords(4 * RATE_HZ)]))))
    assert finding.code == "music"
    assert 6.3 <= finding.seconds[0] <= 9


def test_steadiness_tells_held_tones_from_gliding_ones_and_noise() -> None:
    time_s = np.arange(6 * RATE_HZ) / RATE_HZ
    glide_hz = 140 + 40 * np.sin(2 * np.pi * 0.7 * time_s)
    voice = sum(np.sin(2 * np.pi * k * np.cumsum(glide_hz) / RATE_HZ) / k for k in range(1, 20))
    held = {}
    for name, sound in (
        ("held", chords(len(time_s))),
        ("gliding", voice),
        ("noise", np.random.default_rng(0).standard_normal(len(time_s))),
        ("silence", np.zeros(len(time_s))),
    ):
        measure = ToneSteadiness()
        samples = (0.1 * np.asarray(sound)).astype(np.float32)[: len(time_s) // 512 * 512]
        for at in range(0, len(samples), 4096):
            measure.hear(samples[at : at + 4096])
        whole = ToneSteadiness()
        whole.hear(samples)
        assert measure.steadiness == pytest.approx(whole.steadiness, rel=1e-5)
        held[name] = float(np.median(measure.steadiness))
    assert held["silence"] == 0
    assert max(held["gliding"], held["noise"]) < PARAMS.music_steadiness - 0.05
    assert held["held"] > PARAMS.music_steadiness + 0.05


def test_probabilities_of_speech_are_those_of_the_public_call(talk: np.ndarray) -> None:
    import silero_vad

    samples = talk[: 4 * RATE_HZ // CHUNK_SAMPLES * CHUNK_SAMPLES].astype(np.float32)
    activity = VoiceActivity()
    for at in range(0, len(samples), 32 * CHUNK_SAMPLES):
        activity.hear(samples[at : at + 32 * CHUNK_SAMPLES])
    model: Any = silero_vad.load_silero_vad()
    expected = [model(torch.from_numpy(chunk), RATE_HZ).item() for chunk in samples.reshape(-1, CHUNK_SAMPLES)]
    assert 0.1 < np.mean(np.array(expected) > 0.5) < 0.99
    np.testing.assert_allclose(activity.probabilities(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_speech_share": 2.0},
        {"min_speech_share": 0.5},
        {"silent_dbfs": -20.0},
        {"quiet_dbfs": 3.0},
        {"min_speech_s": -1.0},
        {"min_speech_over_background_db": 90.0},
        {"music_steadiness": 0.0},
        {"max_music": -0.1},
        {"max_overdriven": 1.5},
    ],
)
def test_parameters_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sound"):
        SoundParams(**wrong)


def clean_clips(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / "clips").glob("*.mp4"))
    yield from sorted((folder / "clips" / "grid").glob("*.mpg"))[:4]


@pytest.mark.footage
def test_real_clips_have_no_findings(shared_data: Path) -> None:
    for clip in clean_clips(shared_data):
        assert findings(heard(clip)) == [], clip.name


@pytest.mark.footage
def test_noise_over_a_real_clip_is_noise_and_nothing_else(shared_data: Path, film: Film) -> None:
    from gensync_core.audio.waveform import load_waveform

    speech = load_waveform(shared_data / "clips" / "portrait_hd_20s.mp4")
    noise = np.random.default_rng(0).standard_normal(len(speech)) * 10 ** ((level_db(speech) - 5) / 20)
    assert codes(heard(film(0.7 * (speech + noise)))) == [("noisy_audio", "warn")]
