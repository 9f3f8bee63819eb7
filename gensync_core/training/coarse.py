"""Coarse static start: head and torso Gaussians of one speaker, fitted without any audio.

Source: GSTalker coarse stage.
"""

from dataclasses import dataclass

import numpy as np
import torch

from gensync_core.dataset.clip_dataset import ClipDataset, balanced_weights
from gensync_core.dataset.sampler import mixed_identities, step_rng
from gensync_core.face.canonical import canonical_face
from gensync_core.face.regions import BODY, HEAD, Region
from gensync_core.gaussians.initialization import View, body_fill, initial_head, initial_torso
from gensync_core.gaussians.rasterize import Backend
from gensync_core.losses.weights import LossParams
from gensync_core.model.speaker_state import SpeakerState, fit_aligner
from gensync_core.progress import progress
from gensync_core.training.fit import GAUSSIAN_RATES
from gensync_core.training.metric_log import MetricLog
from gensync_core.training.objective import Trainee, head_terms, torso_terms


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseParams:
    """The static start.

    Attributes:
        steps: optimisation steps, one frame each.
        head_gaussians, torso_gaussians: about how many to start with.
        views: frames to lift the first Gaussians from.
        ssim, mouth, alpha: weights of the loss terms, as in `losses.weights`; a change of the joint losses leaves coarse alone.
    """

    steps: int
    head_gaussians: int
    torso_gaussians: int
    views: int
    ssim: float
    mouth: float
    alpha: float

    def __post_init__(self) -> None:
        for name in ("steps", "head_gaussians", "torso_gaussians", "views"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        self.losses()

    def losses(self) -> LossParams:
        """The terms that a static cloud has."""
        return LossParams(
            ssim=self.ssim,
            mouth=self.mouth,
            alpha=self.alpha,
            motion=0.0,
            size=0.0,
            temporal=0.0,
            stray_attention=0.0,
            confusion=0.0,
            swap=0.0,
        )


def mean_pose(poses: torch.Tensor) -> torch.Tensor:
    """The pose of the frame closest to the average rotation and translation [4, 4]."""
    average = poses.mean(0)
    return poses[int((poses - average).square().sum((1, 2)).argmin())]


def spread_views(data: ClipDataset, count: int) -> list[int]:
    """Training frames that together show most: the mean pose, the widest mouth, then the most different poses."""
    poses = data.head_to_camera[: data.num_train]
    features = torch.cat([poses[:, :3, :3].reshape(len(poses), -1) * 3, poses[:, :3, 3] / poses[:, 2:3, 3].mean()], dim=1)
    chosen = [int((features - features.mean(0)).square().sum(1).argmin()), int(data.aperture[: data.num_train].argmax())]
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
    centre = mean_pose(data.head_to_camera[: data.num_train])
    depth_dm = float(centre[2, 3]) + 0.8
    head_cloud = initial_head(heads, landmarks[: len(vertices)], data.camera, params.head_gaussians, rng)
    torso_cloud = initial_torso([body], data.camera, depth_dm, params.torso_gaussians, rng)
    low, high = torso_cloud.means.amin(0), torso_cloud.means.amax(0)
    return SpeakerState(
        head=head_cloud.to(device),
        torso=torso_cloud.to(device),
        identity=torch.zeros(identity_size, device=device),
        aligner=fit_aligner(landmarks[: len(vertices)], vertices),
        torso_centre=((low + high) / 2).to(device),
        torso_half_size=float((high - low).max() / 2 * 1.05),
        plate=data.plate.to(device),
        camera=data.camera,
        mean_pose=centre.to(device),
        poses=data.head_to_camera[: data.num_train].to(device),
        upper_face=data.upper_face[: data.num_train].to(device),
        meta={},
    )


def fit_coarse(
    data: ClipDataset, params: CoarseParams, identity_size: int, backend: Backend, seed: int
) -> tuple[SpeakerState, MetricLog]:
    """Fit the static clouds on frames with open and closed mouths in equal number."""
    losses = params.losses()
    state = initial_state(data, params, identity_size, seed, backend.device)
    trainee = Trainee.of(data, state)
    optimiser = torch.optim.Adam(
        [
            {"params": [tensor.requires_grad_()], "lr": GAUSSIAN_RATES[name]}
            for cloud in (state.head, state.torso)
            for name, tensor in cloud.named()
        ],
        eps=1e-15,
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    log, weights = MetricLog(), [balanced_weights(data.aperture[: data.num_train])]
    with progress("coarse", params.steps) as bar:
        for step in range(params.steps):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * 10.0 ** -(step / params.steps)
            frame = mixed_identities(seed, step, weights, 1)[0].frame
            behind = torch.from_numpy(step_rng(seed, step, stream=3).random(3, dtype=np.float32))
            head = head_terms(None, trainee, frame, None, losses, backend, behind)
            torso = torso_terms(None, trainee, frame, None, losses, backend)
            loss = head.total + torso.total
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            log.add(step, loss=loss.item(), **head.parts, **torso.parts)
            bar.advance(note=f"loss {loss.item():.4f}")
    log.flush(params.steps)
    return detached(state), log


def detached(state: SpeakerState) -> SpeakerState:
    """Stop training a state: its tensors become plain values."""
    for cloud in (state.head, state.torso):
        for _, tensor in cloud.named():
            tensor.requires_grad_(False)
    state.identity.requires_grad_(False)
    return state
