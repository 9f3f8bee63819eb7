"""What the speech features are, as `params.yaml` says."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioParams:
    """Section `audio` of `params.yaml`.

    Attributes:
        encoder: `whisper-tiny.en`, `log-mel`, a hub id, or a local folder (HuBERT, wav2vec2 or Whisper of transformers).
        layer: which hidden state: 0 enters the first block, n leaves block n. Not used by log-mel.
        allow_log_mel_fallback: use log-mel, and say so, where the encoder's weights are found nowhere.
    """

    encoder: str
    layer: int
    allow_log_mel_fallback: bool

    def __post_init__(self) -> None:
        if not self.encoder:
            raise ValueError("encoder is empty, expected a name such as 'whisper-tiny.en'")
        if self.layer < 0:
            raise ValueError(f"layer is {self.layer}, expected at least 0")
