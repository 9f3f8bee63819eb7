"""What a training step minimises, for one frame of one speaker and for a handful of landmark frames.

Shapes: P pairs of adjacent frames, L landmarks, H = W = resolution.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.face.canonical import canonical_face
from gensync_core.face.regions import (
    BODY,
    HEAD,
    LEFT_EYE,
    LEFT_EYEBROW,
    LIPS_INNER,
    LIPS_OUTER,
    RIGHT_EYE,
    RIGHT_EYEBROW,
)
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.disentangling import swap_inconsistency
from gensync_core.losses.layer_loss import Emphasis, LayerLoss, Truth, layer_loss
from gensync_core.losses.perceptual import Look, patch_error
from gensync_core.losses.photometric import l1_ssim
from gensync_core.losses.regularization import (
    alpha_error,
    deformation_size,
    stray_attention,
    temporal_difference,
)
from gensync_core.losses.weights import LossParams
from gensync_core.model.gensync import GenSync, pose_code
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.rendering.compositor import Layer, over, render_layer

_NOSE_BASE = 2
_UPPER_FACE = LEFT_EYE + RIGHT_EYE + LEFT_EYEBROW + RIGHT_EYEBROW
_MOTION_BETA = 0.03
"""Canonical box; below it the motion term is quadratic, so that the field predicts means: medians of a mouth hardly move."""

_CLOSED_SHARE = 0.05
_SILENT_FRAMES = 8


class Terms(NamedTuple):
    """A differentiable sum and its parts for the log."""

    total: Tensor
    parts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Trainee:
    """A speaker in training: the data, the state that is optimised, and the landmarks of the motion terms.

    Attributes:
        landmarks: mean places of the landmarks, in the speaker's own frame [L, 3] (dm).
        motion: their tracked motion [T, L, 3], in units of the canonical box as it lies at the start of the training.
        unit: of the motion, numbers a dm and axis [3]. It stays when the aligner is trained, which could else make all
            motions, and their errors, small.
        landmark_weight: of each landmark's error [L].
        lips: which of the landmarks are the lips' [M].
        closed: where these are when the mouth is closed, in the unit of `motion` [M, 3].
    """

    data: ClipDataset
    state: SpeakerState
    landmarks: Float[Tensor, "L 3"]
    motion: Float[Tensor, "T L 3"]
    unit: Float[Tensor, "3"]
    landmark_weight: Float[Tensor, "L"]
    lips: Int[Tensor, "M"]
    closed: Float[Tensor, "M 3"]

    @classmethod
    def of(cls, data: ClipDataset, state: SpeakerState) -> "Trainee":
        """Prepare the motion targets of a speaker."""
        index = torch.tensor(motion_landmarks())
        device, unit = state.identity.device, state.aligner.scale.detach().clone()
        is_lip = torch.isin(index, torch.tensor([*LIPS_OUTER, *LIPS_INNER]))
        lips, motion = is_lip.nonzero().squeeze(1).to(device), data.canonical_motion[:, index].to(device) * unit
        return cls(
            data=data,
            state=state,
            landmarks=data.canonical_landmarks[index].to(device),
            motion=motion,
            unit=unit,
            landmark_weight=torch.where(is_lip, 3.0, 1.0).to(device),
            lips=lips,
            closed=motion[_closed_frames(data)][:, lips].mean(0),
        )


def _closed_frames(data: ClipDataset) -> Int[np.ndarray, "_"]:
    """Training frames in which the mouth is open least."""
    aperture = data.aperture[: data.num_train]
    return np.argsort(aperture, kind="stable")[: max(1, round(_CLOSED_SHARE * len(aperture)))]


def motion_landmarks() -> list[int]:
    """Every second vertex below the nose, all of the lips, and the contours of eyes and brows."""
    vertices, _ = canonical_face()
    lower = np.nonzero(vertices[:, 1] > vertices[_NOSE_BASE, 1])[0][::2]
    return sorted({*lower.tolist(), *LIPS_OUTER, *LIPS_INNER, *_UPPER_FACE})


def region_mask(labels: UInt8[Tensor, "H W"], regions: tuple[int, ...]) -> Float[Tensor, "H W"]:
    """1 where a label is one of `regions`."""
    return torch.from_numpy(_membership(regions).numpy()[labels.numpy()])


@functools.cache
def _membership(regions: tuple[int, ...]) -> Float[Tensor, "256"]:
    """1 at the numbers of the regions: looking up a label is twenty times quicker than `torch.isin`."""
    table = torch.zeros(256)
    table[list(regions)] = 1
    return table


def head_loss(data: ClipDataset, frame: int, layer: Layer, behind: Float[Tensor, "3"], ssim: float, mouth: float) -> LayerLoss:
    """A rendered head against everything that is true in the frame; the mouth box weighs `mouth` more.

    Inside the head's mask the head stands before `behind`, a colour drawn anew each step, so that it cannot borrow from
    the picture.
    """
    device = layer.image.device
    emphasis = Emphasis(data.mouth_box_px(frame, margin=0.25), mouth)
    return layer_loss(*layer, _true_head(data, frame, device), behind.to(device), ssim, emphasis)


def _true_head(data: ClipDataset, frame: int, device: torch.device) -> Truth:
    # Bytes from the stores: `data.frame` would make floats of them, which the loss does in passing.
    picture, labels = (torch.from_numpy(np.array(store[frame])).to(device) for store in (data.frames, data.masks))
    return Truth(picture, labels, _membership(HEAD).to(device))


def head_terms(
    network: GenSync,
    trainee: Trainee,
    frame: int,
    audio: Tensor,
    losses: LossParams,
    backend: Backend,
    behind: Float[Tensor, "3"],
    look: Look | None = None,
) -> Terms:
    """Photometric and alpha terms of the head (`head_loss`), and what keeps its deformation small and local.

    With `look` a patch of it is compared by how it looks, too.
    """
    data, state = trainee.data, trainee.state
    device = state.identity.device
    pose = data.head_to_camera[frame].to(device)
    cloud, moved = network.deform_head(state, audio, data.upper_face[frame : frame + 1].to(device), pose[None])
    stray = stray_attention(
        moved.audio_attention, state.aligner.to_box(state.head.means.detach()), network.head_field.mouth
    ).mean()
    regular = losses.size * deformation_size(moved.means).mean() + losses.stray_attention * stray
    layer = render_layer(cloud, pose, data.camera, backend)
    photometric, alpha = head_loss(data, frame, layer, behind, losses.ssim, losses.mouth)
    terms = Terms(photometric + losses.alpha * alpha + regular, {"photometric": photometric.item(), "alpha": alpha.item()})
    if look is None:
        return terms
    error = patch_error(look, *layer, _true_head(data, frame, device), behind.to(device), data.mouth_box_px(frame))
    return Terms(terms.total + losses.perceptual * error, {**terms.parts, "perceptual": error.item()})


def torso_terms(network: GenSync, trainee: Trainee, frame: int, audio: Tensor, losses: LossParams, backend: Backend) -> Terms:
    """Photometric term of the finished frame; the head stays as it is."""
    data, state = trainee.data, trainee.state
    device = state.identity.device
    image, labels = data.frame(frame)
    target, body = image.to(device), region_mask(labels, BODY).to(device)
    pose, body_pose = (part[frame].to(device) for part in (data.head_to_camera, data.body_to_camera))
    with torch.no_grad():
        head_cloud, _ = network.deform_head(state, audio, data.upper_face[frame : frame + 1].to(device), pose[None])
        head = render_layer(head_cloud, pose, data.camera, backend)
    torso = render_layer(network.deform_torso(state, pose[None], body_pose[None]), body_pose, data.camera, backend)
    photometric = l1_ssim(over(head, over(torso, state.plate)), target, losses.ssim)
    seen = 1 - region_mask(labels, HEAD).to(device)
    alpha = (alpha_error(torso.alpha, body) * seen).mean()
    return Terms(photometric + losses.alpha * 10 * alpha, {"torso": photometric.item(), "torso_alpha": alpha.item()})


def _motion_error(moved: Float[Tensor, "B n 3"], tracked: Float[Tensor, "B n 3"]) -> Float[Tensor, "B n"]:
    error = torch.nn.functional.smooth_l1_loss(moved, tracked, reduction="none", beta=_MOTION_BETA)
    # Depth is the least certain of a landmark's coordinates.
    return (error * torch.tensor([1.0, 1.0, 0.3], device=error.device)).sum(-1)


class MotionTerms(NamedTuple):
    """Sum of the motion terms, its parts, and the audio codes [2 P, A] for the confusion term."""

    total: Tensor
    parts: dict[str, float]
    audio: Tensor


def motion_terms(
    network: GenSync,
    trainee: Trainee,
    first_frames: np.ndarray,
    losses: LossParams,
    noise: float,
    generator: torch.Generator,
    other_identity: Tensor | None,
) -> MotionTerms:
    """Landmarks moved by the field against tracked ones, smoothness on adjacent pairs, and the identity swap.

    Querying the field at the landmarks costs a hundredth of a rendered frame, so many frames a step teach audio.
    """
    data, state = trainee.data, trainee.state
    device = state.identity.device
    frames = torch.from_numpy(
        np.stack([first_frames, np.minimum(first_frames + 1, data.num_train - 1)], axis=1).reshape(-1)
    ).to(device)
    count = len(frames)
    features, half = data.features.to(device), count // 2
    # Half of the frames are heard as they are: noise alone makes a mouth that opens too little.
    audio = torch.cat(
        [network.encode_audio(features, frames[:half], noise, generator), network.encode_audio(features, frames[half:])]
    )
    upper_face = data.upper_face.to(device)[frames]
    pose = pose_code(data.head_to_camera.to(device)[frames], state.mean_pose)
    swaps = other_identity is not None and losses.swap > 0
    identities = [state.identity, other_identity] if swaps else [state.identity]
    identity = torch.cat([identity.expand(count, -1) for identity in identities])
    # Both identities at once: then the tri-plane is asked only once where the landmarks rest.
    conditions = [code.repeat(len(identities), 1) for code in (upper_face, pose)]
    rest = state.aligner.to_box(trainee.landmarks)
    both = network.deform_points(rest[None], audio.repeat(len(identities), 1), identity, *conditions).means
    both = state.aligner.motion_from_box(both) * trainee.unit
    moved = both[:count]
    motion = (_motion_error(moved, trainee.motion[frames]) * trainee.landmark_weight).mean()
    temporal = temporal_difference(moved.reshape(count // 2, 2, -1, 3)).mean()
    total = losses.motion * motion + losses.temporal * temporal
    parts = {"motion": motion.item(), "temporal": temporal.item()}
    if swaps:
        swap = swap_inconsistency(moved, both[count:]).mean()
        total = total + losses.swap * swap
        parts["swap"] = swap.item()
    return MotionTerms(total, parts, audio)


def silence_term(network: GenSync, trainee: Trainee, generator: torch.Generator) -> Tensor:
    """Silence, wherever it is heard in, closes the mouth: the lips' error against those of the frames of least opening.

    Pauses in speech are too few to teach it, and speech encoders hear silence differently from moment to moment.
    """
    data, state = trainee.data, trainee.state
    device = state.identity.device
    heard = torch.randint(len(data.silence), (_SILENT_FRAMES,), generator=generator).to(device)
    seen = torch.randint(data.num_train, (_SILENT_FRAMES,), generator=generator)
    moved = network.deform_points(
        state.aligner.to_box(trainee.landmarks[trainee.lips])[None],
        network.encode_audio(data.silence.to(device), heard),
        state.identity.expand(_SILENT_FRAMES, -1),
        data.upper_face[seen].to(device),
        pose_code(data.head_to_camera[seen].to(device), state.mean_pose),
    ).means
    moved = state.aligner.motion_from_box(moved) * trainee.unit
    return _motion_error(moved, trainee.closed.expand_as(moved)).mean()
