import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WhisperConfig, WhisperModel
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper import modeling_whisper

from gensync_core.audio import features as features_module
from gensync_core.audio.audio_params import AudioParams
from gensync_core.audio.features import encode
from gensync_core.audio.log_mel import mel_filters, whisper_log_mel
from gensync_core.audio.whisper_encoder import WhisperEncoder
from gensync_core.audio.whisper_weights import load_encoder_weights, rename_openai_encoder
from gensync_core.errors import ArtefactBroken, AssetMissing, UsageError

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SMALL_CONV = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def params(encoder: object, layer: int = 0, *, fallback: bool = False) -> AudioParams:
    return AudioParams(encoder=str(encoder), layer=layer, allow_log_mel_fallback=fallback)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * 16_000)).astype(np.float32)


def save_tiny(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    if kind == "hubert":
        model = HubertModel(HubertConfig(**SMALL, **SMALL_CONV))
    elif kind == "wav2vec2":
        model = Wav2Vec2Model(Wav2Vec2Config(**SMALL, **SMALL_CONV))
    else:
        config = WhisperConfig(
            d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=40, max_source_positions=150, vocab_size=64,
            pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        )  # fmt: skip
        model = WhisperModel(config)
    model.save_pretrained(folder / kind)
    return folder / kind


def openai_checkpoint(path: Path) -> Path:
    """A tiny.en-shaped encoder under OpenAI's names, random, with a piece of a decoder."""
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.05).half()

    weights = {
        "conv1.weight": tensor(384, 80, 3),
        "conv1.bias": tensor(384),
        "conv2.weight": tensor(384, 384, 3),
        "conv2.bias": tensor(384),
    }
    weights |= {"positional_embedding": tensor(1500, 384), "ln_post.weight": tensor(384), "ln_post.bias": tensor(384)}
    for block in range(4):
        name = f"blocks.{block}"
        for part in ("query", "value", "out"):
            weights |= {f"{name}.attn.{part}.weight": tensor(384, 384), f"{name}.attn.{part}.bias": tensor(384)}
        weights[f"{name}.attn.key.weight"] = tensor(384, 384)
        weights |= {f"{name}.mlp.0.weight": tensor(1536, 384), f"{name}.mlp.0.bias": tensor(1536)}
        weights |= {f"{name}.mlp.2.weight": tensor(384, 1536), f"{name}.mlp.2.bias": tensor(384)}
        for norm in ("attn_ln", "mlp_ln"):
            weights |= {f"{name}.{norm}.weight": tensor(384), f"{name}.{norm}.bias": tensor(384)}
    state = {f"encoder.{name}": value for name, value in weights.items()} | {"decoder.ln.bias": tensor(384)}
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": state}, path)
    return path


def test_log_mel_has_one_row_of_80_bands_per_frame_and_needs_no_rest_of_the_clip() -> None:
    samples = noise(3.0)
    whole = encode(samples, params("log-mel"))
    assert whole.values.shape == (75, 80)
    assert (whole.encoder, whole.weights_sha256, whole.layer) == ("log-mel", "", 0)
    part = encode(samples[: 640 * 50], params("log-mel"))
    np.testing.assert_array_equal(part.values[:48], whole.values[:48])
    assert encode(noise(0.001), params("log-mel")).values.shape == (1, 80)


def test_mel_filters_are_those_that_whisper_was_trained_with() -> None:
    expected = mel_filter_bank(201, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney").T
    np.testing.assert_allclose(mel_filters(80), expected, atol=1e-6)


@pytest.mark.parametrize(("kind", "size"), [("hubert", 16), ("wav2vec2", 16), ("whisper", 16)])
def test_any_speech_encoder_of_a_local_folder(kind: str, size: int, tmp_path: Path) -> None:
    folder = save_tiny(kind, tmp_path)
    samples = noise(4.3)
    first, second = encode(samples, params(folder, 1)), encode(samples, params(folder, 1))
    assert first.values.shape == (round(4.3 * 25), size)
    assert np.isfinite(first.values).all()
    assert len(first.weights_sha256) == 64
    np.testing.assert_array_equal(first.values, second.values)
    assert not np.allclose(first.values, encode(samples, params(folder, 2)).values)
    with pytest.raises(UsageError, match="2 layers"):
        encode(samples, params(folder, 3))


def test_chunks_are_joined_where_both_sides_have_heard_the_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer without attention hears only its surroundings: chunks must then not show at all."""
    folder = save_tiny("wav2vec2", tmp_path)
    config_file = folder / "preprocessor_config.json"
    config_file.write_text('{"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": false}')
    samples = noise(4.0)
    whole = encode(samples, params(folder, 0)).values
    monkeypatch.setattr(features_module._WaveformEncoder, "chunk_frames", 40)
    monkeypatch.setattr(features_module._WaveformEncoder, "margin_frames", 12)
    # The tiny model's group norm runs over the chunk: alike, not equal.
    chunked = encode(samples, params(folder, 0)).values
    assert chunked.shape == whole.shape
    assert np.corrcoef(chunked.ravel(), whole.ravel())[0, 1] > 0.99


def test_whisper_checkpoints_fill_the_encoder_and_silence_after_speech_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = openai_checkpoint(tmp_path / "tiny.en.pt")
    monkeypatch.setattr(features_module, "resolve", lambda _: path)
    samples = noise(2.0)
    short = encode(samples, params("whisper-tiny.en", 3))
    long = encode(np.pad(samples, (0, 16_000)), params("whisper-tiny.en", 3))
    assert short.values.shape == (50, 384)
    np.testing.assert_array_equal(short.values, long.values[:50])
    assert short.weights_sha256 == long.weights_sha256


@pytest.mark.parametrize("layer", range(5))
def test_our_whisper_gives_the_bits_of_transformers(tmp_path: Path, layer: int) -> None:
    weights = load_encoder_weights(openai_checkpoint(tmp_path / "tiny.en.pt"))
    config = WhisperConfig(
        num_mel_bins=80,
        d_model=384,
        encoder_layers=4,
        encoder_attention_heads=6,
        encoder_ffn_dim=1536,
        max_source_positions=1500,
    )
    theirs = modeling_whisper.WhisperEncoder(config).eval()
    theirs.load_state_dict(weights)
    mel = torch.from_numpy(whisper_log_mel(noise(30.0)))
    with torch.inference_mode():
        expected = theirs(mel[None], output_hidden_states=True).hidden_states[layer][0]
        torch.testing.assert_close(WhisperEncoder(weights, 6).states(mel, layer), expected, rtol=0, atol=0)


def test_a_whisper_checkpoint_that_lacks_a_tensor_is_said_to_be_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = openai_checkpoint(tmp_path / "tiny.en.pt")
    content = torch.load(path)
    del content["model_state_dict"]["encoder.blocks.2.mlp.0.bias"]
    torch.save(content, path)
    monkeypatch.setattr(features_module, "resolve", lambda _: path)
    with pytest.raises(ArtefactBroken, match=r"tiny\.en\.pt.*layers\.2\.fc1\.bias"):
        encode(noise(1.0), params("whisper-tiny.en", 3))


def test_a_checkpoint_that_is_not_one_is_said_to_be_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.en.pt"
    path.write_bytes(b"junk")
    monkeypatch.setattr(features_module, "resolve", lambda _: path)
    with pytest.raises(ArtefactBroken, match=r"tiny\.en\.pt"):
        encode(noise(1.0), params("whisper-tiny.en", 3))
    with pytest.raises(ValueError, match="unknown encoder tensor"):
        rename_openai_encoder({"encoder.conv9.weight": torch.zeros(1)})


def test_no_weights_is_an_error_unless_log_mel_is_allowed_and_then_it_is_said_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(asset_id: str) -> Path:
        raise AssetMissing(f"{asset_id} was not found")

    monkeypatch.setattr(features_module, "resolve", missing)
    with pytest.raises(AssetMissing):
        encode(noise(1.0), params("whisper-tiny.en", 3))
    with caplog.at_level(logging.WARNING):
        result = encode(noise(1.0), params("whisper-tiny.en", 3, fallback=True))
    assert result.encoder == "log-mel"
    assert "log-mel" in caplog.text


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="encoder"):
        params("")
    with pytest.raises(ValueError, match="layer"):
        params("log-mel", -1)
    with pytest.raises(ValueError, match="no samples"):
        encode(np.zeros(0, dtype=np.float32), params("log-mel"))


def test_real_whisper_weights_agree_with_the_probe_that_was_fitted_on_them(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gensync_core.audio.waveform import load_waveform

    monkeypatch.setenv("GENSYNC_ASSETS", str(shared_data / "models"))
    samples = load_waveform(shared_data / "speech" / "jfk.wav")
    features = encode(samples, params("whisper-tiny.en", 3)).values
    loudness = np.log(np.square(samples[: len(features) * 640].reshape(-1, 640)).mean(axis=1) + 1e-6)
    probe = np.load(shared_data / "models" / "sync_probe_ridge.npz")
    padded = np.pad(features, ((3, 3), (0, 0)), mode="edge")
    context = np.concatenate([padded[shift : shift + len(features)] for shift in range(7)], axis=1)
    opening = (context @ probe["W"].T + probe["b"])[:, 0]
    assert np.corrcoef(opening, loudness[: len(opening)])[0, 1] > 0.4
