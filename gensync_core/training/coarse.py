"""Coarse static start: head and torso Gaussians of one speaker, fitted without any audio.

Source: GSTalker coarse stage.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.dataset.clip_dataset import ClipDataset, balanced_weights
from gensync_core.dataset.sampler import mixed_identities, step_rng
from gensync_core.face.canonical import canonical_face
from gensync_core.face.regions import BODY, HEAD, Region
from gensync_core.gaussians.densification import GAUSSIAN_RATES, Densifier
from gensync_core.gaussians.initialization import View, body_fill, initial_head, initial_torso
from gensync_core.gaussians.rasterize import Backend, ScreenData
from gensync_core.losses.photometric import l1_ssim
from gensync_core.losses.regularization import alpha_error
from gensync_core.model.speaker_state import SpeakerState, fit_aligner
from gensync_core.progress import progress
from gensync_core.rendering.compositor import Layer, over, render_layer_and_screen
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.objective import head_loss, region_mask
from gensync_core.training.schedules import CoarseParams


def spread_views(data: ClipDataset, count: int) -> list[int]:
    """Training frames that together show most: the reference frame, the widest mouth, then the most different poses."""
    poses = data.head_to_camera[: data.num_train]
    features = torch.cat([poses[:, :3, :3].reshape(len(poses), -1) * 3, poses[:, :3, 3] / poses[:, 2:3, 3].mean()], dim=1)
    chosen = [data.reference_frame, int(data.aperture[: data.num_train].argmax())]
    while len(chosen) < min(count, len(poses)):
        nearest = torch.stack([(features - features[index]).square().sum(1) for index in chosen]).amin(0)
        chosen.append(int(nearest.argmax()))
    return chosen[:count]


def initial_state(data: ClipDataset, params: CoarseParams, identity_size: int, seed: int, device: str) -> SpeakerState:
    """Lift the first Gaussians out of a few frames.

    Raises:
        ValueError: the masks of these frames show no head or no body at all.
    """
    rng = np.random.default_rng([seed, 77])
    chosen = spread_views(data, params.views)
    heads = []
    for index in chosen:
        frame = data.frame(index)
        labels, image = frame.labels.numpy(), frame.image.numpy()
        pose = data.head_to_camera[index].numpy()
        head = np.isin(labels, [int(region) for region in HEAD])
        heads.append(View(image, head, labels == Region.MOUTH, pose))
    # One view of the body only: shoulders move between frames, and a second view would blur the first.
    first, labels = data.frame(chosen[0]).image.numpy(), data.frame(chosen[0]).labels.numpy()
    filled, extended = body_fill(
        first, np.isin(labels, [int(region) for region in BODY]), heads[0].inside, reach_px=data.camera.height // 8
    )
    body = View(filled, extended, np.zeros_like(extended), heads[0].head_to_camera)
    vertices, _ = canonical_face()
    landmarks = data.canonical_landmarks.numpy()
    mean_pose = data.head_to_camera[data.reference_frame]
    depth_dm = float(mean_pose[2, 3]) + 0.8
    head_cloud = initial_head(heads, landmarks[: len(vertices)], data.camera, params.head_gaussians, rng)
    torso_cloud = initial_torso([body], data.camera, depth_dm, params.torso_gaussians, rng)
    low, high = torso_cloud.means.amin(0), torso_cloud.means.amax(0)
    return SpeakerState(
        head=head_cloud.with_sh_degree(params.sh_degree).to(device),
        torso=torso_cloud.to(device),
        identity=torch.zeros(identity_size, device=device),
        aligner=fit_aligner(landmarks[: len(vertices)], vertices),
        torso_centre=((low + high) / 2).to(device),
        torso_half_size=float((high - low).max() / 2 * 1.05),
        plate=data.plate.to(device),
        camera=data.camera,
        mean_pose=mean_pose.to(device),
        take=data.motion.take(slice(data.num_train)).to(device),
        meta={},
    )


class StaticTerms(NamedTuple):
    """The loss of one frame, its parts for the log, and where the Gaussians of head and torso landed."""

    total: Float[Tensor, ""]
    parts: dict[str, float]
    head_screen: ScreenData
    torso_screen: ScreenData


def static_terms(
    data: ClipDataset, state: SpeakerState, frame: int, params: CoarseParams, backend: Backend, behind: Float[Tensor, "3"]
) -> StaticTerms:
    """Photometric and alpha terms of the static head (`head_loss`), and of the static torso behind it.

    The torso is judged in the finished frame, in which the head stays as it is.
    """
    device = state.identity.device
    image, labels = data.frame(frame)
    target = image.to(device)
    in_head, in_body = region_mask(labels, HEAD).to(device), region_mask(labels, BODY).to(device)
    pose = data.head_to_camera[frame].to(device)
    head, head_screen = render_layer_and_screen(state.head, pose, data.camera, backend)
    torso, torso_screen = render_layer_and_screen(state.torso, data.body_to_camera[frame].to(device), data.camera, backend)

    head_photometric, head_alpha = head_loss(data, frame, head, behind, params.ssim, params.mouth)
    still = Layer(head.image.detach(), head.alpha.detach())
    torso_photometric = l1_ssim(over(still, over(torso, state.plate)), target, params.ssim)
    torso_alpha = (alpha_error(torso.alpha, in_body) * (1 - in_head)).mean()
    parts = {
        "photometric": head_photometric.item(),
        "alpha": head_alpha.item(),
        "torso": torso_photometric.item(),
        "torso_alpha": torso_alpha.item(),
    }
    total = head_photometric + torso_photometric + params.alpha * (head_alpha + 10 * torso_alpha)
    return StaticTerms(total, parts, head_screen, torso_screen)


def fit_coarse(
    data: ClipDataset, params: CoarseParams, identity_size: int, backend: Backend, seed: int
) -> tuple[SpeakerState, MetricLog]:
    """Fit the static clouds on frames with open and closed mouths in equal number."""
    state = initial_state(data, params, identity_size, seed, backend.device)
    head = Densifier(state.head, GAUSSIAN_RATES, params.densification if params.densify else None, seed)
    torso = Densifier(state.torso, GAUSSIAN_RATES)
    log, weights = MetricLog(), [balanced_weights(data.aperture[: data.num_train])]
    size = data.camera.width, data.camera.height
    with progress("coarse", params.steps) as bar:
        for step in range(params.steps):
            frame = mixed_identities(seed, step, weights, 1)[0].frame
            behind = torch.from_numpy(step_rng(seed, step, stream=3).random(3, dtype=np.float32))
            state.head, state.torso = head.cloud, torso.cloud
            terms = static_terms(data, state, frame, params, backend, behind)
            terms.total.backward()
            for trained, screen in ((head, terms.head_screen), (torso, terms.torso_screen)):
                trained.scale_rates(10.0 ** -(step / params.steps))
                trained.after_backward(step, screen, *size)
            log.add(step, loss=terms.total.item(), **terms.parts)
            bar.advance(note=f"loss {terms.total.item():.4f}, {len(head)} Gaussians in the head")
    log.flush(params.steps)
    state.head, state.torso = head.cloud.detach(), torso.cloud.detach()
    state.freeze()
    return state, log
