import logging
from collections.abc import Iterator

import made_up_avatar
import numpy as np
import pytest
import torch

from gensync_core.audio.features import encode
from gensync_core.gaussians.rasterize import Backend
from gensync_core.rendering import fast_field, synthesis
from gensync_core.rendering.compositor import Layer, over
from gensync_core.rendering.picture import picture
from gensync_core.rendering.synth_params import SynthParams
from gensync_core.rendering.synthesis import Avatar, ping_pong


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return encode(made_up_avatar.speech(14.0), made_up_avatar.params().audio).values


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(one.astype(float) - other).mean(), 1e-9)))


def test_ping_pong_never_jumps():
    index = ping_pong(5, 23)
    assert index.tolist()[:10] == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    assert np.abs(np.diff(index)).max() == 1
    assert ping_pong(1, 3).tolist() == [0, 0, 0]
    assert np.concatenate([ping_pong(5, 7), ping_pong(5, 16, start=7)]).tolist() == index.tolist()


def test_over_is_premultiplied():
    layer = Layer(torch.tensor([[[0.25, 0.0, 0.0]]]), torch.tensor([[0.5]]))
    torch.testing.assert_close(over(layer, torch.ones(1, 1, 3)), torch.tensor([[[0.75, 0.5, 0.5]]]))


@pytest.mark.parametrize("threads", [1, 3])
def test_picture_is_head_over_torso_over_plate_in_bytes(threads):
    generator = torch.Generator().manual_seed(0)
    head, torso = (
        Layer(torch.rand(9, 13, 3, generator=generator) * 1.2, torch.rand(9, 13, generator=generator)) for _ in range(2)
    )
    plate = torch.rand(9, 13, 3, generator=generator)
    exact = over(Layer(*(part.double() for part in head)), over(Layer(*(part.double() for part in torso)), plate.double()))
    found = picture(head, torso, plate, threads)
    assert found.dtype == np.uint8
    assert np.abs(found - exact.clamp(0, 1).numpy() * 255).max() <= 0.5 + 1e-3
    doubles = [Layer(*(part.double() for part in layer)) for layer in (head, torso)]
    np.testing.assert_array_equal(found, picture(*doubles, plate.double()))


def test_a_stream_renders_what_the_whole_clip_renders(features):
    avatar, count = made_up_avatar.avatar(), 60
    take = ping_pong(avatar.num_frames, count)
    motion = avatar.state.take.take(take)
    whole = [frame.image for frame in avatar.render(features[:count], motion, np.arange(count))]
    pieces = [frame.image for frame in avatar.stream(np.split(features[:count], [3, 20, 21]))]
    assert len(pieces) == count
    assert min(psnr(one, other) for one, other in zip(whole, pieces, strict=True)) > 60


def test_fast_frames_are_near_full_ones(features, caplog):
    avatar = made_up_avatar.avatar()
    full = [frame.image for frame in avatar.stream([features[:120]])]
    assert psnr(full[0], full[100]) < 40, "the made-up fields must move"
    with caplog.at_level(logging.INFO):
        found = avatar.quicken(features, 10_000)
    assert (found.mode, avatar.field.mode) == ("fast", "fast")
    assert "fast mode" in caplog.text
    fast = [frame.image for frame in avatar.stream([features[:120]])]
    likeness = [psnr(one, other) for one, other in zip(full, fast, strict=True)]
    assert min(likeness) > synthesis.MIN_PSNR_DB
    assert found.likeness is not None
    assert found.likeness.psnr_min > synthesis.MIN_PSNR_DB
    assert abs(found.likeness.psnr_mean - np.mean(likeness)) < 8
    assert 0 < found.likeness.error_mean < found.likeness.error_max


def test_bases_that_are_not_good_enough_are_not_used_and_it_is_said(features, monkeypatch, caplog):
    monkeypatch.setattr(fast_field, "_HEAD_RANK", 1)
    monkeypatch.setattr(fast_field, "MAX_RESIDUAL", 1e9)
    monkeypatch.setattr(synthesis, "MIN_PSNR_DB", 60.0)
    avatar = made_up_avatar.avatar()
    with caplog.at_level(logging.INFO):
        found = avatar.quicken(features)
    assert (found.mode, avatar.field.mode) == ("full", "full")
    assert "60 dB" in found.reason
    assert found.reason in caplog.text


def test_a_frame_outside_of_the_bases_is_rendered_in_full(features, monkeypatch):
    monkeypatch.setattr(fast_field, "MAX_RESIDUAL", -1.0)
    avatar = made_up_avatar.avatar()
    full = [frame.image for frame in avatar.stream([features[:20]])]
    assert avatar.quicken(features).mode == "fast"
    field = avatar.field
    assert isinstance(field, fast_field.FastField)
    field.num_outside = 0
    fast = [frame.image for frame in avatar.stream([features[:20]])]
    assert field.num_outside == 20
    np.testing.assert_array_equal(fast, full)


def test_few_frames_do_not_pay_for_bases(features):
    avatar = made_up_avatar.avatar()
    found = avatar.quicken(features, 100)
    assert found.mode == avatar.field.mode == "full"
    assert found.likeness is None
    assert "100 frames" in found.reason


@pytest.mark.parametrize(
    "switches", [{"deform": ["opacity", "mean"]}, {"triplane": "dense"}, {"attention": False}, {"torso_field": False}], ids=str
)
def test_a_field_without_one_of_its_components_can_be_quickened(features, switches):
    from dataclasses import replace

    from gensync_core.model.gensync import GenSync

    torch.manual_seed(0)
    network = GenSync(replace(made_up_avatar.params().model, **switches), made_up_avatar.FEATURES)
    with torch.no_grad():
        network.head_field.last.weight.normal_(std=0.2)
    avatar = Avatar(network, made_up_avatar.speaker(), Backend("cpu", "cpu", 1))
    full = [frame.image for frame in avatar.stream([features[:30]])]
    assert avatar.quicken(features).mode == "fast"
    fast = [frame.image for frame in avatar.stream([features[:30]])]
    assert min(psnr(one, other) for one, other in zip(full, fast, strict=True)) > synthesis.MIN_PSNR_DB


def test_closing_a_stream_closes_what_feeds_it(features):
    closed = []

    def blocks() -> Iterator[np.ndarray]:
        try:
            while True:
                yield features[:30]
        finally:
            closed.append(True)

    stream = made_up_avatar.avatar().stream(blocks())
    next(stream)
    stream.close()
    assert closed


@pytest.mark.parametrize(("key", "value"), [("mode", "quick"), ("batch_frames", 0), ("crf", 52)])
def test_bad_parameters_are_refused(key, value):
    with pytest.raises(ValueError, match=key):
        SynthParams(**{"mode": "fast", "batch_frames": 32, "crf": 16, key: value})
