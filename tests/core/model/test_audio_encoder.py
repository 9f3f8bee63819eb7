import pytest
import torch

from gensync_core.model.audio_encoder import AudioEncoder

SIZES = [(4, 8), (8, 16), (1, 2), (3, 6), (2, 10), (1, 8)]


def _encoder(neighbours, size, features=12, smoothing=True):
    torch.manual_seed(0)
    return AudioEncoder(features, 8, neighbours, size, bottleneck=5, smoothing=smoothing).double()


def _spans(neighbours, size, count=3, features=12):
    return torch.randn(count, neighbours + size - 1, features, dtype=torch.float64)


def _by_definition(encoder, windows):
    """The same of windows [B, W, S, D] that are encoded each by itself."""
    codes = torch.stack([encoder.window(encoder.bottleneck(window).flatten(1)) for window in windows.unbind(1)], dim=1)
    if encoder.pooling is None:
        return encoder.normalise(codes[:, 0])
    attention = torch.softmax(encoder.pooling(codes.mT).squeeze(1), dim=-1)
    return encoder.normalise((attention[..., None] * codes).sum(1))


def _assert_same_gradients(encoder, codes, expected):
    parameters, upstream = list(encoder.parameters()), torch.randn_like(codes)
    found, right = (torch.autograd.grad(out, parameters, upstream, allow_unused=True) for out in (codes, expected))
    torch.testing.assert_close(found, right)


@pytest.mark.parametrize("smoothing", [True, False])
@pytest.mark.parametrize(("neighbours", "size"), SIZES)
def test_codes_and_gradients_are_those_of_the_definition(neighbours, size, smoothing):
    encoder, spans = _encoder(neighbours, size, smoothing=smoothing), _spans(neighbours, size)
    windows = spans.unfold(1, size, 1).mT if smoothing else spans[:, None]
    codes, expected = encoder(spans), _by_definition(encoder, windows)
    torch.testing.assert_close(codes, expected)
    _assert_same_gradients(encoder, codes, expected)


@pytest.mark.parametrize("smoothing", [True, False])
def test_the_whole_span_is_heard_with_and_without_smoothing(smoothing):
    encoder, spans = _encoder(4, 8, smoothing=smoothing), _spans(4, 8)
    for frame in (0, -1):
        far = spans.clone()
        far[:, frame] += 1
        assert not torch.allclose(encoder(spans), encoder(far))


def test_frames_are_encoded_alike_alone_and_together():
    encoder, spans = _encoder(4, 8).float(), _spans(4, 8).float()
    torch.testing.assert_close(torch.cat([encoder(span[None]) for span in spans]), encoder(spans), atol=1e-5, rtol=0)


@pytest.mark.parametrize("features", [12, 3])  # more and fewer than the bottleneck lets through
def test_noise_acts_as_if_it_were_added_to_the_features_of_each_window(features):
    encoder, spans = _encoder(4, 8, features), _spans(4, 8, features=features)
    codes = encoder(spans, 1.5, torch.Generator().manual_seed(7))
    basis = torch.linalg.qr(encoder.bottleneck.weight.detach().T).Q
    draws = torch.randn(3, 4, 8, basis.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    expected = _by_definition(encoder, spans.unfold(1, 8, 1).mT + 1.5 * draws @ basis.T)
    torch.testing.assert_close(codes, expected)
    _assert_same_gradients(encoder, codes, expected)


@pytest.mark.parametrize("features", [12, 3])
def test_noise_leaves_the_bottleneck_as_noise_on_all_features_would(features):
    encoder, generator = _encoder(4, 8, features), torch.Generator().manual_seed(0)
    out = encoder._noise(torch.Size([1, 1, 40000, 5]), generator).flatten(0, 2).detach()
    weight = encoder.bottleneck.weight.detach()
    scale = (weight @ weight.T).diagonal().max()
    torch.testing.assert_close(out.mean(0) / scale.sqrt(), torch.zeros(5).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(out.T @ out / len(out) / scale, weight @ weight.T / scale, atol=0.03, rtol=0)


def test_noise_repeats_with_the_seed_and_is_drawn_anew_for_each_window():
    encoder, spans = _encoder(2, 8), torch.zeros(2, 9, 12, dtype=torch.float64)
    noisy = [encoder(spans, 1.0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.allclose(noisy[0], noisy[2])
    drawn = encoder._noise(torch.Size([2, 2, 8, 5]), torch.Generator().manual_seed(1))
    assert drawn.flatten(0, 2).unique(dim=0).shape[0] == 32
