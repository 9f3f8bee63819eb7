import torch

from gensync_core.model.disentanglement import CodeModulation, Disentanglement, SpeakerClassifier
from gensync_core.model.spatial_audio_attention import SpatialAudioAttention


def test_fusion_is_a_true_product():
    """With skips at zero, no audio or no identity gives nothing: a sum would."""
    module = Disentanglement(4, 4, 3, rank=2)
    with torch.no_grad():
        for skip in (module.identity_skip, module.audio_skip):
            for parameter in skip.parameters():
                parameter.zero_()
    z, a, nothing = torch.randn(5, 4), torch.randn(5, 4), torch.zeros(5, 4)
    assert torch.equal(module(z, nothing), torch.zeros(5, 3))
    assert torch.equal(module(nothing, a), torch.zeros(5, 3))
    assert module(z, a).abs().min() > 0
    torch.testing.assert_close(module(2 * z, 3 * a), 6 * module(z, a))


def test_fusion_add_and_none():
    torch.manual_seed(0)
    z, a = torch.randn(2, 4), torch.randn(2, 4)
    added = Disentanglement(4, 4, 3, rank=2, fusion="add")
    torch.testing.assert_close(
        added(z, a), added.core(added.identity_factor(z) + added.audio_factor(a)) + added.identity_skip(z) + added.audio_skip(a)
    )
    none = Disentanglement(4, 4, 3, rank=2, fusion="none")
    assert torch.equal(none(z, a), none(torch.randn(2, 4), a))


def test_modulation_starts_as_the_identity():
    hidden = torch.randn(2, 7, 8)
    assert torch.equal(CodeModulation(4, 8)(hidden, torch.randn(2, 4)), hidden)


def test_classifier_gradient_is_reversed():
    classifier = SpeakerClassifier(4, 3)
    audio = torch.randn(2, 4, requires_grad=True)
    classifier(audio).sum().backward()
    plain = torch.autograd.grad(classifier.layers(audio.detach().requires_grad_()).sum(), audio, allow_unused=True)[0]
    reference = audio.detach().clone().requires_grad_()
    classifier.layers(reference).sum().backward()
    assert plain is None
    torch.testing.assert_close(audio.grad, -reference.grad)


def test_attention_weights_sum_to_one_and_follow_permuted_points():
    attention = SpatialAudioAttention(6, 8)
    features, tokens = torch.randn(2, 5, 6), torch.randn(2, 3, 8)
    order = torch.tensor([4, 2, 0, 1, 3])
    barred = torch.rand(2, 5, 3)
    out, permuted = attention(features, tokens, barred), attention(features[:, order], tokens, barred[:, order])
    torch.testing.assert_close(out.weights.sum(-1), torch.ones(2, 5))
    torch.testing.assert_close(out.values[:, order], permuted.values)
