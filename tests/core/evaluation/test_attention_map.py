"""What the pictures of attention show, on a made-up avatar."""

from dataclasses import replace

import made_up_avatar
import numpy as np
import pytest
import torch

from gensync_core.evaluation import attention_map
from gensync_core.evaluation.attention_map import attention_sheet, attention_weights
from gensync_core.evaluation.contact_sheet import TILE_PX
from gensync_core.model.head_field import TOKENS
from gensync_core.rendering.synthesis import Avatar

FRAMES = np.array([2, 9, 14])


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return made_up_avatar.avatar()


@pytest.fixture(scope="module")
def heard() -> tuple:
    """Sound, frames and motion."""
    features = torch.from_numpy(np.random.default_rng(0).random((20, made_up_avatar.FEATURES), dtype=np.float32))
    state = made_up_avatar.speaker()
    return features, FRAMES, state.take.take(FRAMES)


def columns(image: np.ndarray) -> list[np.ndarray]:
    """The tiles of a sheet of one row."""
    starts = range(0, image.shape[1], TILE_PX + 4)
    return [image[:, start : start + TILE_PX].astype(float) for start in starts]


def test_the_weights_are_those_that_the_field_worked_with(avatar: Avatar, heard: tuple) -> None:
    weights = attention_weights(avatar, *heard)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    features, frames, motion = heard
    with torch.no_grad():
        codes = avatar.network.encode_audio(features, torch.from_numpy(frames))
        parts = codes, motion.upper_face, motion.head_to_camera
        moved = [avatar.network.deform_head(avatar.state, *(part[i : i + 1] for part in parts))[1] for i in range(3)]
    voice = torch.cat([deformation.audio_attention for deformation in moved]).mean(0)
    torch.testing.assert_close(weights[:, TOKENS.index("voice")], voice, rtol=1e-3, atol=1e-4)
    assert voice.std() > 1e-3


def test_bright_is_where_a_token_is_heard(avatar: Avatar, heard: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    left = avatar.state.head.means[:, 0] < 0  # the camera looks along z, x to the right
    weights = torch.zeros(len(left), len(TOKENS))
    weights[left, TOKENS.index("voice")] = 1.0
    weights[~left, TOKENS.index("pose")] = 1.0
    monkeypatch.setattr(attention_map, "attention_weights", lambda *_: weights)
    sheet = attention_sheet(avatar, *heard)
    assert sheet is not None
    tiles = dict(zip(("rest", *TOKENS), columns(sheet.image), strict=True))
    assert len(sheet.captions) == 6
    middle = slice(TILE_PX // 3, 2 * TILE_PX // 3)
    sides = slice(TILE_PX // 4, 2 * TILE_PX // 5), slice(3 * TILE_PX // 5, 3 * TILE_PX // 4)
    brightness = {name: [picture[middle, side].mean() for side in sides] for name, picture in tiles.items()}
    assert brightness["voice"][0] > 1.5 * brightness["voice"][1]
    assert brightness["pose"][1] > 1.5 * brightness["pose"][0]
    assert max(brightness["null"]) < 40


def test_captions_tell_the_mouth_from_elsewhere(avatar: Avatar, heard: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    points = avatar.state.aligner.to_box(avatar.state.head.means)
    near = torch.linalg.vector_norm(points - avatar.network.head_field.mouth, dim=-1) < 0.35
    assert 0 < int(near.sum()) < len(near)
    weights = torch.zeros(len(near), len(TOKENS))
    weights[:, 0], weights[:, 3] = near * 0.75, ~near * 0.5
    monkeypatch.setattr(attention_map, "attention_weights", lambda *_: weights)
    sheet = attention_sheet(avatar, *heard)
    assert sheet is not None
    assert sheet.captions[1] == "voice\n0.75 / 0.00"
    assert sheet.captions[4] == "pose\n0.00 / 0.50"


def test_the_same_avatar_gives_the_same_picture(avatar: Avatar, heard: tuple) -> None:
    one, other = attention_sheet(avatar, *heard), attention_sheet(avatar, *heard)
    assert one is not None
    assert other is not None
    assert one.image.tobytes() == other.image.tobytes()
    assert one.captions == other.captions


def test_a_network_without_attention_has_nothing_to_show(heard: tuple) -> None:
    avatar = made_up_avatar.avatar(40)
    avatar.network.params = replace(avatar.network.params, attention=False)
    assert attention_sheet(avatar, *heard) is None
