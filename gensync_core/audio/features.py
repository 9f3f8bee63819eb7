"""Speech features on the frame grid: Whisper tiny.en by default, any other speech encoder of transformers, or log-mel.

`layer` counts as transformers' `hidden_states` do: 0 is what enters the first transformer block, n is what block n (from 1)
puts out. Layer 2 of Whisper tiny.en is the output of the second of its four blocks: mouths of voices that were never heard
follow it better than the layers after it (`benchmarks/audio_features.py`).
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.assets import WHISPER_TINY_EN, resolve
from gensync_core.audio.audio_params import AudioParams
from gensync_core.audio.frame_grid import Chunking, StateEncoder, encode_stream, widest
from gensync_core.audio.log_mel import LogMelEncoder, whisper_log_mel
from gensync_core.audio.torch_threads import fixed_threads
from gensync_core.audio.waveform import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, num_video_frames
from gensync_core.audio.whisper_encoder import WhisperEncoder
from gensync_core.audio.whisper_weights import load_encoder_weights
from gensync_core.errors import ArtefactBroken, AssetMissing, UsageError
from gensync_core.progress import progress

LOG_MEL = "log-mel"

_LOGGER = logging.getLogger(__name__)
_NUM_THREADS = 2  # fixed: another number rounds differently
_CHUNK_FRAMES = 30 * FPS
_MARGIN_FRAMES = 62  # 2.5 s
_STATES_PER_FRAME = 2  # Whisper: 50 Hz
_TINY_HEADS = 6


class SpeechFeatures(NamedTuple):
    """Features of one piece of speech.

    Attributes:
        values: one float32 vector per video frame at 25 fps.
        encoder: the encoder that was used: `params.encoder`, or `log-mel` after a fallback.
        weights_sha256: digest of the weights themselves, whichever file held them; empty for log-mel.
        layer: hidden state that was read; 0 for log-mel.
    """

    values: Float[np.ndarray, "T D"]
    encoder: str
    weights_sha256: str
    layer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Listening:
    """How speech is heard while it is spoken, in video frames (25 a second). The sum of the last two is what it costs in time.

    Attributes:
        context_frames: most frames that are heard at once; more cost more time at every hop.
        look_ahead_frames: frames after one that must have been heard before it gets its features; encoders that hear less
            far (log-mel) wait less.
        hop_frames: frames that get their features together.
    """

    context_frames: int = 125
    look_ahead_frames: int = 12
    hop_frames: int = 12

    def __post_init__(self) -> None:
        if self.hop_frames < 1 or self.look_ahead_frames < 0:
            raise ValueError(
                f"hop_frames is {self.hop_frames}, look_ahead_frames {self.look_ahead_frames}; expected 1, 0 or more"
            )
        if self.context_frames < self.hop_frames + self.look_ahead_frames:
            raise ValueError(f"context_frames is {self.context_frames}: less than a hop and its look-ahead together")


class SpeechEncoder:
    """A speech encoder with its weights loaded: for whole waveforms, for files of any length, and for live speech.

    Attributes:
        name: the encoder that was loaded: `params.encoder`, or `log-mel` after a fallback.
        weights_sha256: digest of the weights themselves, whichever file held them; empty for log-mel.
        layer: hidden state that is read; 0 for log-mel.
    """

    def __init__(self, params: AudioParams) -> None:
        """Load the weights.

        Raises:
            AssetMissing: they are found nowhere and `allow_log_mel_fallback` is off.
            ArtefactBroken: they are found, but are none.
            UsageError: the encoder is not one for speech, or has no such layer.
        """
        self._states, self.name, self.weights_sha256, self.layer = LogMelEncoder(), LOG_MEL, "", 0
        if params.encoder == LOG_MEL:
            return
        try:
            self._states, self.weights_sha256 = _load(params)
            self.name, self.layer = params.encoder, params.layer
        except AssetMissing as error:
            if not params.allow_log_mel_fallback:
                raise
            _LOGGER.warning(
                "no weights for %s: using log-mel features instead, which follow the mouth less well (%s)",
                params.encoder,
                error,
            )

    def encode(self, samples: Float[np.ndarray, "N"]) -> SpeechFeatures:
        """Features of 16 kHz mono samples, one vector per video frame; the same samples give the same bits."""
        if len(samples) == 0:
            raise ValueError("there are no samples to encode")
        parts = []
        with progress("audio features", num_video_frames(len(samples))) as bar:
            for part in self.stream([samples]):
                parts.append(part)
                bar.advance(len(part))
        return SpeechFeatures(np.concatenate(parts), self.name, self.weights_sha256, self.layer)

    def stream(self, blocks: Iterable[Float[np.ndarray, "_"]]) -> Iterator[Float[np.ndarray, "F D"]]:
        """Features of 16 kHz mono samples that come in blocks, some half a minute at a time, in constant memory.

        They are those of `encode`, bit for bit.
        """
        return encode_stream(blocks, _Calm(self._states), widest(self._states))

    def listen(self, blocks: Iterable[Float[np.ndarray, "_"]], listening: Listening) -> Iterator[Float[np.ndarray, "F D"]]:
        """Features as soon as they can be had, `hop_frames` at a time: near those of `encode`, which hears more around them.

        A hop that ends with frame k comes once `look_ahead_frames` and half a frame after frame k have been heard.
        """
        chunking = self.chunking(listening)
        states = self._states.shortened(chunking.length) if isinstance(self._states, _WhisperEncoder) else self._states
        return encode_stream(blocks, _Calm(states), chunking)

    def chunking(self, listening: Listening) -> Chunking:
        """How live speech is cut for this encoder."""
        look_ahead = min(listening.look_ahead_frames, self._states.margin_frames)
        length = min(listening.context_frames, self._states.chunk_frames)
        return Chunking(listening.hop_frames, listening.hop_frames, look_ahead, length)


def encode(samples: Float[np.ndarray, "N"], params: AudioParams) -> SpeechFeatures:
    """`SpeechEncoder.encode` by an encoder that is loaded for this once.

    Raises:
        AssetMissing: the encoder's weights are found nowhere and `allow_log_mel_fallback` is off.
        ArtefactBroken: they are found, but are none.
        UsageError: the encoder is not one for speech, or has no such layer.
    """
    return SpeechEncoder(params).encode(samples)


class _Calm:
    """An encoder whose every call runs without gradients and with a fixed number of threads."""

    def __init__(self, encoder: StateEncoder) -> None:
        self._encoder = encoder
        self.step_s, self.offset_s = encoder.step_s, encoder.offset_s
        self.chunk_frames, self.margin_frames = encoder.chunk_frames, encoder.margin_frames

    def __call__(self, samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "S D"]:
        with fixed_threads(_NUM_THREADS), torch.inference_mode():
            return self._encoder(samples)


def _load(params: AudioParams) -> tuple[StateEncoder, str]:
    path = resolve(params.encoder)
    if params.encoder == WHISPER_TINY_EN:
        weights = load_encoder_weights(path)
        return _whisper(path, params, weights, _TINY_HEADS), _digest(weights)
    model = _pretrained(path)
    config, weights = model.config, model.state_dict()
    if config.model_type == "whisper":
        return _whisper(path, params, weights, config.encoder_attention_heads), _digest(weights)
    if not (hasattr(config, "conv_stride") and hasattr(config, "conv_kernel")):
        message = f"audio.encoder {params.encoder} is a {config.model_type!r} model: expected HuBERT, wav2vec2 or Whisper"
        raise UsageError(message)
    _check_layer(params, config.num_hidden_layers)
    return _WaveformEncoder(model, params.layer, _normalises(path)), _digest(weights)


def _whisper(path: Path, params: AudioParams, weights: Mapping[str, Tensor], num_heads: int) -> "_WhisperEncoder":
    try:
        encoder = WhisperEncoder(weights, num_heads)
    except ValueError as error:
        raise ArtefactBroken(f"{path}: no whole Whisper encoder ({error}); delete it, so that it is fetched again") from error
    _check_layer(params, encoder.num_layers)
    return _WhisperEncoder(encoder, params.layer)


def _check_layer(params: AudioParams, num_layers: int) -> None:
    if params.layer > num_layers:
        raise UsageError(
            f"audio.layer is {params.layer}, but {params.encoder} has {num_layers} layers: choose 0 to {num_layers}"
        )


def _pretrained(folder: Path) -> Any:
    from transformers import AutoModel  # 3 to 5 s

    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UsageError(f"audio.encoder {folder}: not a model that transformers can load ({error})") from error
    return (model.get_encoder() if model.config.model_type == "whisper" else model).eval()


def _normalises(folder: Path) -> bool:
    """Whether the model wants samples of zero mean and unit variance; true unless its preprocessor says otherwise."""
    from transformers import AutoFeatureExtractor

    if not (folder / "preprocessor_config.json").exists():
        return True
    return bool(getattr(AutoFeatureExtractor.from_pretrained(folder, local_files_only=True), "do_normalize", True))


class _WhisperEncoder:
    """Whisper always hears a full chunk, filled up with silence, as in its training."""

    step_s = 1.0 / (FPS * _STATES_PER_FRAME)
    offset_s = 0.0

    def __init__(self, encoder: WhisperEncoder, layer: int) -> None:
        self._encoder, self._layer = encoder, layer
        self.chunk_frames = encoder.num_positions // _STATES_PER_FRAME
        self.margin_frames = min(_MARGIN_FRAMES, self.chunk_frames // 6)

    def __call__(self, samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "S D"]:
        num_frames = len(samples) // SAMPLES_PER_FRAME
        heard = samples[: self.chunk_frames * SAMPLES_PER_FRAME]
        filled = np.pad(heard, (0, self.chunk_frames * SAMPLES_PER_FRAME - len(heard)))
        states = self._encoder.states(torch.from_numpy(whisper_log_mel(filled, self._encoder.num_mels)), self._layer)
        return states[: num_frames * _STATES_PER_FRAME + 1].numpy()

    def shortened(self, chunk_frames: int) -> "_WhisperEncoder":
        """One that hears shorter chunks, for less time: the first positions of those that it was trained with."""
        return _WhisperEncoder(self._encoder.shortened(chunk_frames * _STATES_PER_FRAME), self._layer)


class _WaveformEncoder:
    """HuBERT and wav2vec2 hear exactly the samples there are: padding would shift their normalisation."""

    chunk_frames = _CHUNK_FRAMES
    margin_frames = _MARGIN_FRAMES

    def __init__(self, model: Any, layer: int, normalises: bool) -> None:
        self._model, self._layer, self._normalises = model, layer, normalises
        reach, stride = 1, 1
        for kernel, step in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
            reach += (kernel - 1) * stride
            stride *= step
        self._reach = reach
        self.step_s = stride / SAMPLE_RATE_HZ
        self.offset_s = reach / 2 / SAMPLE_RATE_HZ

    def __call__(self, samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "S D"]:
        if self._normalises:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        heard = np.pad(samples, (0, max(0, self._reach - len(samples)))).astype(np.float32)
        return self._model(torch.from_numpy(heard)[None], output_hidden_states=True).hidden_states[self._layer][0].numpy()


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}:{tuple(weights[name].shape)};".encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
