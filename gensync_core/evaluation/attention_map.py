"""Which Gaussian listens to what: the head in its mean pose, each Gaussian in the colour of its attention to one token.

Shapes: F frames, N Gaussians of the head, K tokens, T frames of sound, D feature size.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from matplotlib import colormaps
from torch import Tensor

from gensync_core.evaluation import contact_sheet
from gensync_core.evaluation.report import ContactSheet
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.spherical_harmonics import SH_C0
from gensync_core.geometry.motion import Motion
from gensync_core.model.gensync import pose_code
from gensync_core.model.head_field import TOKENS
from gensync_core.rendering.compositor import Layer, render_layer
from gensync_core.rendering.synthesis import Avatar

_COLOURS = "inferno"
_BEHIND = 32
"""Grey behind the heads."""
_NEAR = 0.35
"""Canonical box; a Gaussian so near to the mouth's centre counts as being at the mouth."""


@torch.no_grad()
def attention_weights(
    avatar: Avatar,
    features: Float[Tensor, "T D"],
    frames: Int[np.ndarray, "F"],
    motion: Motion,
) -> Float[Tensor, "N K"]:
    """Share of each token in what each Gaussian of the head hears, averaged over some frames; in the order of `TOKENS`."""
    network, state = avatar.network, avatar.state
    device = state.identity.device
    audio = network.encode_audio(features.to(device), torch.from_numpy(frames).to(device))
    identity, motion = state.identity.expand(len(frames), -1), motion.to(device)
    pose = pose_code(motion.head_to_camera, state.mean_pose)
    points, fused = state.aligner.to_box(state.head.means), network.disentanglement(identity, audio)
    parts = zip(*(part.split(1) for part in (fused, identity, motion.upper_face, pose)), strict=True)
    # One frame at a time: for fifty thousand Gaussians all of them would take a gigabyte.
    return torch.stack([network.head_field.attention_weights(points, *part)[0] for part in parts]).mean(0)


@torch.no_grad()
def attention_sheet(
    avatar: Avatar,
    features: Float[Tensor, "T D"],
    frames: Int[np.ndarray, "F"],
    motion: Motion,
) -> ContactSheet | None:
    """The head as it is, and once for each token; all weights on one scale, from 0 to the largest that is seen.

    Below each token: its mean weight at the mouth and elsewhere. None where the network has no attention to show.
    """
    if not avatar.network.params.attention:
        return None
    state = avatar.state
    weights = attention_weights(avatar, features, frames, motion)
    maps = np.stack([_seen(avatar, weights[:, token]) for token in range(len(TOKENS))])
    shown = maps / max(float(np.nanmax(maps, initial=0.0)), 1e-6)
    tiles = [_tile(shown[token]) for token in range(len(TOKENS))]
    distances = torch.linalg.vector_norm(state.aligner.to_box(state.head.means) - avatar.network.head_field.mouth, dim=-1)
    captions = ["the head at rest\nat the mouth / elsewhere:"]
    for token, name in enumerate(TOKENS):
        near, far = weights[distances < _NEAR, token], weights[distances >= _NEAR, token]
        captions.append(f"{name}\n{_mean(near)} / {_mean(far)}")
    image = contact_sheet.arrange([[_portrait(avatar), *tiles]])
    return ContactSheet(image=image, rows=("",), captions=captions)


def _seen(avatar: Avatar, values: Float[Tensor, "N"]) -> Float[np.ndarray, "H W"]:
    """The values where they are seen from the front, NaN where there is no head."""
    head = avatar.state.head
    gray = values[:, None].expand(-1, 3)
    layer = _render(avatar, replace(head, sh=((gray - 0.5) / SH_C0)[:, None]))
    alpha = layer.alpha.cpu().numpy()
    return np.where(alpha > 0.5, layer.image[..., 0].cpu().numpy() / np.maximum(alpha, 0.5), np.nan)


def _render(avatar: Avatar, head: GaussianCloud) -> Layer:
    return render_layer(head, avatar.state.mean_pose, avatar.state.camera, avatar.backend)


def _tile(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "s s 3"]:
    colours = (colormaps[_COLOURS](np.nan_to_num(values))[..., :3] * 255).round().astype(np.uint8)
    return contact_sheet.tile(np.where(np.isnan(values)[..., None], np.uint8(_BEHIND), colours))


def _portrait(avatar: Avatar) -> UInt8[np.ndarray, "s s 3"]:
    layer = _render(avatar, avatar.state.head)
    picture = layer.image + (1 - layer.alpha)[..., None] * (_BEHIND / 255)
    return contact_sheet.tile((picture.clamp(0, 1) * 255).round().byte().cpu().numpy())


def _mean(values: Float[Tensor, "_"]) -> str:
    return f"{values.mean():.2f}" if len(values) else "–"
