"""A training of two made-up speakers that takes milliseconds a step, for tests; run as a program it is a process of one.

    python made_up_training.py FOLDER STEPS [CHECKPOINT_INTERVAL_S]

trains in FOLDER/scratch with the processes that torchrun started and writes FOLDER/trained.safetensors: all tensors, and the
log as metadata.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gensync_core.artefacts import write_tensors
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.face.regions import Region
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.rasterize import Backend
from gensync_core.geometry.camera import Intrinsics
from gensync_core.losses.weights import LossParams
from gensync_core.media.frames import FrameStore
from gensync_core.model.gensync import GenSync
from gensync_core.model.model_params import ModelParams
from gensync_core.model.speaker_state import Aligner, SpeakerState
from gensync_core.training import fit as fit_module
from gensync_core.training.fit import Fit
from gensync_core.training.objective import Trainee
from gensync_core.training.processes import Processes, joined_processes
from gensync_core.training.schedules import FitParams

FRAMES, SIZE_PX = 12, 24
MODEL = ModelParams(
    identity_size=6,
    audio_size=8,
    neighbours=4,
    window_size=8,
    smoothing=True,
    fusion="product",
    rank=4,
    deform=["mean", "opacity"],
    mean_scale=0.05,
    triplane="hash",
    triplane_levels=2,
    triplane_finest=32,
    triplane_log2_table=8,
    attention=True,
    torso_field=True,
    hidden_size=16,
    mouth_radius=0.35,
)
FIT = FitParams(
    steps=4,
    torso_steps=2,
    batch_size=2,
    motion_pairs=3,
    network_rate=1e-2,
    grid_rate=1e-2,
    identity_rate=1e-2,
    aligner_rate=0.0,
    torso_rate=0.5,
    gaussian_rate=1.0,
    weight_decay=0.1,
    feature_noise=0.5,
)
LOSSES = LossParams(
    ssim=0.2,
    mouth=1.0,
    alpha=0.05,
    motion=20.0,
    size=1e-4,
    temporal=0.02,
    stray_attention=1e-3,
    confusion=1e-3,
    silence=1.0,
    swap=0.2,
    perceptual=0.0,
)


def trainee_of(seed: int) -> Trainee:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    pose = torch.eye(4)
    pose[2, 3] = 5.0
    poses = pose.repeat(FRAMES, 1, 1)
    poses[:, :3, 3] += 0.05 * normal(FRAMES, 3)
    camera = Intrinsics(fx=40.0, fy=40.0, cx=12.0, cy=12.0, width=SIZE_PX, height=SIZE_PX)
    landmarks = torch.from_numpy(canonical_landmarks().astype(np.float32))
    seen = (landmarks @ pose[:3, :3].T + pose[:3, 3]) @ torch.from_numpy(camera.matrix()).T
    data = ClipDataset(
        frames=FrameStore(rng.integers(0, 255, (FRAMES, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)),
        masks=FrameStore(rng.integers(0, len(Region), (FRAMES, SIZE_PX, SIZE_PX), dtype=np.uint8)),
        camera=camera,
        head_to_camera=poses,
        body_to_camera=torch.eye(4) + 0.01 * normal(FRAMES, 4, 4) * torch.tensor([1.0, 1, 0, 0])[:, None],
        reference_frame=0,
        upper_face=normal(FRAMES, 6),
        landmarks_px=torch.cat([seen[:, :2] / seen[:, 2:], seen[:, 2:]], dim=1).repeat(FRAMES, 1, 1),
        canonical_landmarks=landmarks,
        canonical_motion=0.05 * normal(FRAMES, len(landmarks), 3),
        aperture=rng.random(FRAMES).astype(np.float32),
        features=normal(FRAMES, 10),
        silence=0.1 * normal(FRAMES, 10),
        plate=torch.full((SIZE_PX, SIZE_PX, 3), 0.4),
        num_train=FRAMES - 2,
    )
    cloud = GaussianCloud.from_points(
        0.5 * normal(30, 3), torch.rand(30, 3, generator=torch.Generator().manual_seed(seed)), 0.2
    )
    state = SpeakerState(
        head=cloud,
        torso=GaussianCloud.from_points(cloud.means + torch.tensor([0.0, 1.0, 5.0]), cloud.colors, 0.2),
        identity=normal(MODEL.identity_size),
        aligner=Aligner(torch.tensor([0.6, 0.5, 0.7]), torch.tensor([0.1, 0.0, -0.1])),
        torso_centre=torch.tensor([0.0, 1.0, 5.0]),
        torso_half_size=2.0,
        plate=data.plate,
        camera=camera,
        mean_pose=pose,
        take=data.motion,
        meta={},
    )
    return Trainee.of(data, state)


def network_of() -> GenSync:
    torch.manual_seed(0)
    network = GenSync(MODEL, feature_size=10)
    with torch.no_grad():
        network.head_field.last.weight.normal_(std=0.3)
        network.head_field.modulation.affine.weight.normal_(std=0.3)
    return network


def fit_of(params: FitParams = FIT, processes: Processes = Processes()) -> Fit:  # noqa: B008 - immutable
    trainees = [trainee_of(0), trainee_of(1)]
    return Fit(network_of(), trainees, params, LOSSES, Backend("cpu", "cpu"), 5, train_shared=True, processes=processes)


def main(folder: Path, steps: int, checkpoint_interval_s: float) -> None:
    fit_module._CHECKPOINT_INTERVAL_S = checkpoint_interval_s
    torch.set_num_threads(1)
    with joined_processes("cpu") as processes:
        fit = fit_of(replace(FIT, steps=steps, torso_steps=steps // 2), processes)
        start = fit.run(folder / "scratch" / "job", "made up")
        if processes.is_first:
            arrays = {name: tensor.detach().numpy() for name, tensor in fit.tensors().items()}
            write_tensors(folder / "trained.safetensors", arrays, {"log": fit.log.rows, "start": start})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 60.0)
