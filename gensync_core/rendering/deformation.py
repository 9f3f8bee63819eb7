"""One speaker's Gaussians at a frame, by the shared network: the full mode of rendering.

Shapes: B frames, A audio code, n of the N Gaussians of a layer, K outputs of its field.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.geometry.motion import Motion
from gensync_core.model.gensync import GenSync, pose_code
from gensync_core.model.speaker_state import SpeakerState


class Conditions(NamedTuple):
    """What some frames of one speaker depend on."""

    audio: Float[Tensor, "B A"]
    motion: Motion

    def take(self, frames: slice | Int[Tensor, "b"]) -> "Conditions":
        """Those of some of the frames."""
        return Conditions(self.audio[frames], self.motion.take(frames))


class PosedSpeaker(NamedTuple):
    """The head in its canonical frame and the torso in the body's, deformed for one frame."""

    head: GaussianCloud
    torso: GaussianCloud


@runtime_checkable
class Field(Protocol):
    """Deforms a speaker frame by frame. `mode`: full | fast."""

    mode: str

    def pose(self, conditions: Conditions) -> Iterator[PosedSpeaker]:
        """One posed speaker for each frame."""
        ...


class FullField:
    """The networks, at every Gaussian of every frame."""

    mode = "full"

    def __init__(self, network: GenSync, state: SpeakerState) -> None:
        self.network, self.state = network, state

    def pose(self, conditions: Conditions) -> Iterator[PosedSpeaker]:
        """One posed speaker for each frame."""
        for frame in range(len(conditions.audio)):
            audio, (pose, body_pose, upper_face) = conditions.take(slice(frame, frame + 1))
            head, _ = self.network.deform_head(self.state, audio, upper_face, pose)
            yield PosedSpeaker(head, self.network.deform_torso(self.state, pose, body_pose))


@runtime_checkable
class FieldLayer(Protocol):
    """The head or the torso as rows of outputs: what a basis is made of.

    Attributes:
        cloud: the Gaussians at rest.
        attributes: of the cloud, those that the field moves, in the order of its outputs.
        steps: how far one unit of each output moves its attribute [K].
        weights: how much an error of each output shows, relative to the others [K].
    """

    cloud: GaussianCloud
    attributes: tuple[str, ...]
    steps: Tensor
    weights: Tensor

    def outputs(self, conditions: Conditions, chosen: Int[Tensor, "n"]) -> Float[Tensor, "B n K"]:
        """The field's outputs, in its units, for some Gaussians."""
        ...


_ATTRIBUTES = {"mean": "means", "opacity": "logit_opacities", "scale": "log_scales", "quat": "quats"}
_MEAN_WEIGHT = 4.0
"""A unit of the means shows more than a unit of the others: with 4 the pictures are 1 to 3 dB nearer than with 1."""


class HeadLayer:
    """See `FieldLayer`."""

    def __init__(self, network: GenSync, state: SpeakerState) -> None:
        field = network.head_field
        self._network, self._state = network, state
        self.cloud, self.attributes = state.head, tuple(_ATTRIBUTES[name] for name in field.deform)
        ones = {name: torch.ones(field.sizes[name], device=field.units.device) for name in field.deform}
        to_cloud = {**ones, "mean": state.aligner.motion_from_box(torch.ones_like(state.aligner.scale))}
        self._units = field.units
        self.steps = field.units * torch.cat([to_cloud[name] for name in field.deform])
        self.weights = torch.cat([ones[name] * (_MEAN_WEIGHT if name == "mean" else 1.0) for name in field.deform])

    def outputs(self, conditions: Conditions, chosen: Int[Tensor, "n"]) -> Float[Tensor, "B n K"]:
        """The head field's outputs for some Gaussians."""
        state, batch = self._state, len(conditions.audio)
        moved = self._network.deform_points(
            state.aligner.to_box(state.head.means[chosen])[None],
            conditions.audio,
            state.identity.expand(batch, -1),
            conditions.motion.upper_face,
            pose_code(conditions.motion.head_to_camera, state.mean_pose),
        )
        parts = [getattr(moved, name) for name in self.attributes]
        return torch.cat([part.reshape(batch, len(chosen), -1) for part in parts], dim=-1) / self._units


class TorsoLayer:
    """See `FieldLayer`; the units are those of the torso field."""

    def __init__(self, network: GenSync, state: SpeakerState) -> None:
        self._network, self._state, self.cloud = network, state, state.torso
        self.attributes: tuple[str, ...] = ("means", "quats")
        device = state.identity.device
        self.steps = torch.tensor([network.torso_field.mean_scale * state.torso_half_size] * 3 + [0.1] * 4, device=device)
        self.weights = torch.tensor([_MEAN_WEIGHT] * 3 + [1.0] * 4, device=device)

    def outputs(self, conditions: Conditions, chosen: Int[Tensor, "n"]) -> Float[Tensor, "B n K"]:
        """How far the field moves some Gaussians of the torso."""
        torso = GaussianCloud(**{name: part[chosen] for name, part in self.cloud.named()})
        some = replace(self._state, torso=torso)
        poses = zip(conditions.motion.head_to_camera, conditions.motion.body_to_camera, strict=True)
        moved = [self._network.deform_torso(some, head[None], body[None]) for head, body in poses]
        parts = [torch.cat([cloud.means - torso.means, cloud.quats - torso.quats], dim=-1) for cloud in moved]
        return torch.stack(parts) / self.steps
