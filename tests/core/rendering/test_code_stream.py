import made_up_avatar
import numpy as np
import pytest
import soundfile
import torch

from gensync_core.audio.features import SpeechEncoder
from gensync_core.audio.waveform import iter_waveform, num_video_frames
from gensync_core.rendering.code_stream import reach, stream_codes


@pytest.fixture(scope="module")
def network():
    return made_up_avatar.network().eval()


def features(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, made_up_avatar.FEATURES)).astype(np.float32)


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [30], [5, 6, 20, 21, 39]])
def test_codes_are_those_of_the_whole_speech_however_it_is_cut(network, cuts):
    whole = features(40)
    expected = network.encode_audio(torch.from_numpy(whole), torch.arange(40))
    batches = list(stream_codes(network, np.split(whole, cuts), 7))
    assert max(map(len, batches)) <= 7
    torch.testing.assert_close(torch.cat(batches), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_code_hears_as_far_as_reach_says_and_no_further(network):
    past, future = reach(network.params)
    frame, whole = 20, torch.from_numpy(features(40))
    before = network.encode_audio(whole, torch.tensor([frame]))
    heard = []
    for other in range(40):
        changed = whole.clone()
        changed[other] += 1.0
        heard.append(not torch.equal(network.encode_audio(changed, torch.tensor([frame])), before))
    assert [other for other, is_heard in enumerate(heard) if is_heard] == list(range(frame - past, frame + future + 1))


@torch.no_grad()
def test_a_code_comes_as_soon_as_its_window_is_there(network):
    future = reach(network.params).future
    taken = 0

    def blocks():
        nonlocal taken
        for row in features(30):
            taken += 1
            yield row[None]

    for frame, _ in enumerate(stream_codes(network, blocks(), 8)):
        assert taken == min(30, frame + future + 1)


@torch.no_grad()
def test_no_drift_over_ten_minutes(network, tmp_path):
    """Bursts at known times: the codes react as many frames before them at the end as at the beginning."""
    seconds, rate_hz, bursts_s = 600.0, 44_100, np.array([7.02, 31.98, 250.5, 433.3, 594.98])
    samples = np.zeros(round(seconds * rate_hz), dtype=np.float32)
    for burst_s in bursts_s:
        start = round(burst_s * rate_hz)
        samples[start : start + rate_hz // 100] = 0.8 * np.sin(np.arange(rate_hz // 100))
    soundfile.write(tmp_path / "bursts.wav", samples, rate_hz, subtype="PCM_16")
    encoder = SpeechEncoder(made_up_avatar.params().audio)
    codes = torch.cat(list(stream_codes(network, encoder.stream(iter_waveform(tmp_path / "bursts.wav")), 32)))
    assert len(codes) == 15_000 == num_video_frames(600 * 16_000)
    reacts = ((codes - codes[2000]).norm(dim=1) > 0.05 * codes[2000].norm()).numpy()
    first = np.flatnonzero(reacts & ~np.roll(reacts, 1))
    assert len(first) == len(bursts_s)
    offsets = first - bursts_s * 25
    assert np.ptp(offsets) <= 1, offsets
    assert abs(offsets[-1] - offsets[0]) < 0.6
