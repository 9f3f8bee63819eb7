"""audio: the clip's sound in, speech features on its frames out."""

from gensync_core.artefacts import read_json, write_tensors
from gensync_core.audio.features import SpeechEncoder
from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME, load_waveform, silence
from gensync_core.errors import ArtefactBroken
from gensync_core.params import Params
from gensync_core.paths import Project

_SILENT_FRAMES = 30 * FPS
"""As much as the longest piece that an encoder hears at once: features of silence change with their place in it."""


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Write `audio.safetensors`: {features [T, D], one row a frame of the clip; silence [750, D]}, both float32.

    Raises:
        ArtefactBroken: the sound is not as long as the clip.
        AssetMissing: the encoder's weights are found nowhere and no fallback is allowed.
    """
    paths = project.speaker(project.registry().get(speaker_id))
    num_frames = read_json(paths.clip_json)["num_frames"]
    encoder = SpeechEncoder(params.audio)
    features = encoder.encode(load_waveform(paths.wav))
    if len(features.values) != num_frames:
        raise ArtefactBroken(
            f"{paths.wav}: as long as {len(features.values)} frames, but the clip has {num_frames}; run ingest again"
        )
    meta = {"encoder": features.encoder, "weights_sha256": features.weights_sha256, "layer": features.layer, "fps": FPS}
    quiet = encoder.encode(silence(_SILENT_FRAMES * SAMPLES_PER_FRAME))
    write_tensors(paths.audio, {"features": features.values, "silence": quiet.values}, meta)
