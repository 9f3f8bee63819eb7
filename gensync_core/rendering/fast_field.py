"""The fast mode of rendering: per-Gaussian bases of one speaker, and a code a frame.

Made once for a speaker from the audio codes of some speech and from poses of the speaker's own take, in about the time that
the full mode takes for `NUM_SAMPLES` frames. Every frame says by itself whether the bases hold it; one that they do not hold
is rendered in full.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.rendering.deformation import Conditions, FullField, HeadLayer, PosedSpeaker, TorsoLayer
from gensync_core.rendering.deformation_basis import DeformationBasis, fit_basis

NUM_SAMPLES = 256
"""Frames that the bases are made of."""
NUM_HELD_OUT = 16
"""Further frames on which the error is measured."""
MAX_RESIDUAL = 0.12
"""Root mean square over the anchors, in weighted output units, beyond which a frame is rendered in full. On trained speakers
all frames below were 43 dB or nearer, whatever the sound: speech, other speech, silence, noise (docs/model.md)."""

_HEAD_RANK, _HEAD_ANCHORS = 48, 160
_TORSO_RANK, _TORSO_ANCHORS = 12, 64
_FRAMES_AT_ONCE = 8


class FastField:
    """A code a frame instead of a network a Gaussian.

    Attributes:
        num_outside: frames so far that the bases did not hold and that were deformed in full.
    """

    mode = "fast"

    def __init__(self, full: FullField, head: DeformationBasis, torso: DeformationBasis) -> None:
        self._full, self._head, self._torso = full, head, torso
        self.num_outside = 0

    def pose(self, conditions: Conditions) -> Iterator[PosedSpeaker]:
        """One posed speaker for each frame."""
        for start in range(0, len(conditions.audio), _FRAMES_AT_ONCE):
            yield from self._pose_few(conditions.take(slice(start, start + _FRAMES_AT_ONCE)))

    def _pose_few(self, conditions: Conditions) -> Iterator[PosedSpeaker]:
        of_head, of_torso = self._head.frame_codes(conditions), self._torso.frame_codes(conditions)
        outside = (torch.maximum(of_head.residuals, of_torso.residuals) > MAX_RESIDUAL).tolist()
        clouds = zip(self._head.clouds(of_head.codes), self._torso.clouds(of_torso.codes), strict=True)
        for frame, (head, torso) in enumerate(clouds):
            if outside[frame]:
                self.num_outside += 1
                yield from self._full.pose(conditions.take(slice(frame, frame + 1)))
            else:
                yield PosedSpeaker(head, torso)


def sample_conditions(state: SpeakerState, codes: Float[Tensor, "T A"], generator: torch.Generator) -> Conditions:
    """`NUM_SAMPLES` + `NUM_HELD_OUT` frames, in any order: sounds spread over `codes`, poses over the take, in random pairs."""
    count = NUM_SAMPLES + NUM_HELD_OUT
    device = codes.device

    def spread(length: int) -> Tensor:
        evenly = torch.linspace(0, length - 1, count, dtype=torch.float64).round().long()
        return evenly[torch.randperm(count, generator=generator)].to(device)

    motion = state.take.take(spread(len(state.take.head_to_camera)))
    return Conditions(codes[spread(len(codes))], motion)


def fit_fast_field(network: GenSync, state: SpeakerState, samples: Conditions, generator: torch.Generator) -> FastField:
    """The bases of head and torso at the given frames."""
    head = fit_basis(HeadLayer(network, state), samples, _HEAD_RANK, _HEAD_ANCHORS, generator)
    torso = fit_basis(TorsoLayer(network, state), samples, _TORSO_RANK, _TORSO_ANCHORS, generator)
    return FastField(FullField(network, state), head, torso)


def output_errors(network: GenSync, state: SpeakerState, full: PosedSpeaker, fast: PosedSpeaker) -> Float[Tensor, "M"]:
    """Absolute differences of all outputs of head and torso, in units of the outputs."""
    layers = (HeadLayer(network, state), full.head, fast.head), (TorsoLayer(network, state), full.torso, fast.torso)
    parts = []
    for layer, one, other in layers:
        steps = layer.steps.abs().split([getattr(layer.cloud, name)[0].numel() for name in layer.attributes])
        for name, step in zip(layer.attributes, steps, strict=True):
            parts.append((_attribute(one, name) - _attribute(other, name)).abs().div(step).flatten())
    return torch.cat(parts)


def _attribute(cloud: GaussianCloud, name: str) -> Float[Tensor, "N k"]:
    return getattr(cloud, name).reshape(len(cloud), -1)
