"""Pictures and sound of a stretch are those that the footage shows and plays then, wherever decoding begins."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gensync_core.audio.waveform import SAMPLES_PER_FRAME, load_waveform
from gensync_core.media.probe import probe
from gensync_core.media.stretch import Stretch, View, stretch_frames, stretch_sound

WHOLE = View(0, 0, 160, 128, 160, 128)


@pytest.mark.parametrize(("start_s", "first"), [(0.0, 0), (0.4, 10), (2.2, 55)])
def test_frames_and_sound_of_a_stretch(
    make_clip: Callable[..., Path], make_frame: Callable[..., np.ndarray], start_s: float, first: int
) -> None:
    path = make_clip()
    stretch = Stretch(start_s, 20)
    frames = list(stretch_frames(path, probe(path), stretch, WHOLE))
    assert len(frames) == 20
    for index, frame in enumerate(frames, start=first):
        assert abs(float(frame[48, 60, 0]) - float(make_frame(index, 160, 128)[48, 60, 0])) < 3
    samples = stretch_sound(path, probe(path), stretch)
    assert len(samples) == 20 * SAMPLES_PER_FRAME
    begin = first * SAMPLES_PER_FRAME
    np.testing.assert_allclose(samples, load_waveform(path)[begin : begin + len(samples)], atol=0.02)


def test_a_stretch_past_the_end_has_fewer_frames_and_silence(make_clip: Callable[..., Path]) -> None:
    path = make_clip()
    stretch = Stretch(3.6, 20)
    assert len(list(stretch_frames(path, probe(path), stretch, WHOLE))) == 10
    samples = stretch_sound(path, probe(path), stretch)
    assert len(samples) == 20 * SAMPLES_PER_FRAME
    assert np.abs(samples[12 * SAMPLES_PER_FRAME :]).max() == 0


def test_a_view_is_cropped_and_scaled(make_clip: Callable[..., Path]) -> None:
    path = make_clip()
    frame = next(stretch_frames(path, probe(path), Stretch(0.0, 1), View(40, 32, 40, 32, 20, 16)))
    assert frame.shape == (16, 20, 3)
    assert frame[2:-2, 2:-2, 0].std() < 2
