"""Blocks of sound lie where they are heard, whatever the container."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gensync_core.errors import FootageRejected
from gensync_core.media.clip_cutting import Span
from gensync_core.media.probe import SoundFormat, Unreadable, sound_format
from gensync_core.media.sound import iter_sound

RATE_HZ = 16_000


def test_blocks_are_the_sound(make_wav: Callable[..., Path]) -> None:
    wav = make_wav(2.5)
    assert sound_format(wav) == SoundFormat(RATE_HZ, 1)
    stored = np.frombuffer(wav.read_bytes()[-2 * round(2.5 * RATE_HZ) :], dtype="<i2")
    blocks = list(iter_sound(wav, Span(0.0, 2.5), block_samples=4096))
    assert {len(block) for block in blocks[:-1]} == {4096}
    assert np.array_equal(np.concatenate(blocks)[:, 0], stored)
    assert np.array_equal(np.concatenate(list(iter_sound(wav, Span(1.0, 2.25))))[:, 0], stored[RATE_HZ : round(2.25 * RATE_HZ)])


def test_channels_are_averaged_or_kept(make_wav: Callable[..., Path]) -> None:
    wav = make_wav(1.0)
    mono = np.concatenate(list(iter_sound(wav, Span(0.0, 1.0))))
    fine = np.concatenate(list(iter_sound(wav, Span(0.0, 1.0), SoundFormat(48_000, 1))))
    assert fine.shape == (48_000, 1)
    assert np.abs(fine[::3].astype(int) - mono)[2000:8000].max() < 40


def test_what_has_no_sound_is_refused(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    mute = make_clip(sound_s=None, seconds=1)
    with pytest.raises(Unreadable):
        sound_format(mute)
    with pytest.raises(FootageRejected):
        list(iter_sound(mute, Span(0.0, 1.0)))
    with pytest.raises(FootageRejected):
        list(iter_sound(tmp_path / "absent.mp4", Span(0.0, 1.0)))
