"""Where somebody speaks: Silero VAD, whose weights lie in its wheel."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from gensync_core.media.clip_cutting import SAMPLE_RATE_HZ

CHUNK_SAMPLES = 512
CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE_HZ

_CONTEXT_SAMPLES = 64
_STATE_SIZE = 128


class VoiceActivity:
    """Hears 16 kHz sound a block at a time; one probability of speech for each chunk of 32 ms.

    The public call of Silero's model takes one chunk. Its parts take a block of them, and only the recurrent layer goes from
    chunk to chunk: the same probabilities (to 1e-5) in a fifteenth of the time.

    Source: Silero VAD 6 (MIT).
    """

    def __init__(self) -> None:
        import silero_vad

        loaded: Any = silero_vad.load_silero_vad()
        self._network = loaded._model
        self._recurrent = torch.nn.LSTM(_STATE_SIZE, _STATE_SIZE)
        cell = self._network.decoder.rnn.state_dict()
        self._recurrent.load_state_dict({f"{name}_l0": value for name, value in cell.items()})
        self._state: tuple[torch.Tensor, torch.Tensor] | None = None
        self._context = np.zeros(_CONTEXT_SAMPLES, dtype=np.float32)
        self._probabilities: list[float] = []

    @torch.inference_mode()
    def hear(self, samples: Float[np.ndarray, "N"]) -> None:
        """Take the next samples, in -1..1; N is a whole number of chunks."""
        heard = np.concatenate([self._context, samples])
        self._context = heard[-_CONTEXT_SAMPLES:]
        windows = torch.from_numpy(heard).unfold(0, _CONTEXT_SAMPLES + CHUNK_SAMPLES, CHUNK_SAMPLES)
        codes = self._network.encoder(self._network.run_extractors(windows)).squeeze(-1)
        hidden, self._state = self._recurrent(codes[:, None], self._state)
        self._probabilities += self._network.decoder.decoder(hidden.transpose(1, 2)).reshape(-1).tolist()

    def probabilities(self) -> Float[np.ndarray, "C"]:
        """Of all chunks so far."""
        return np.array(self._probabilities, dtype=np.float32)

    def spans(self) -> list[tuple[float, float]]:
        """Begin and end in s of all speech so far: at least 0.25 s long, over pauses of up to 0.1 s, with 0.03 s around it."""
        from silero_vad import get_speech_timestamps_from_probs

        found = get_speech_timestamps_from_probs(self._probabilities, sampling_rate=SAMPLE_RATE_HZ)
        return [(span["start"] / SAMPLE_RATE_HZ, span["end"] / SAMPLE_RATE_HZ) for span in found]
