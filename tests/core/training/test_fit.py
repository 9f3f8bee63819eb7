"""The training loop on two made-up speakers: terms against their definitions, and bits that do not depend on interruptions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.face.regions import HEAD, Region
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.rasterize import Backend
from gensync_core.geometry.camera import Intrinsics
from gensync_core.losses.disentangling import swap_inconsistency
from gensync_core.losses.weights import LossParams
from gensync_core.media.frames import FrameStore
from gensync_core.model.gensync import GenSync, ModelParams, pose_code
from gensync_core.model.speaker_state import Aligner, SpeakerState
from gensync_core.training import fit as fit_module
from gensync_core.training.fit import Fit, FitParams
from gensync_core.training.objective import Trainee, motion_terms, region_mask

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
    triplane_levels=2,
    triplane_finest=32,
    triplane_log2_table=8,
    hidden_size=16,
)
FIT = FitParams(
    steps=4,
    torso_steps=2,
    batch_size=2,
    motion_pairs=3,
    network_rate=1e-2,
    grid_rate=1e-2,
    identity_rate=1e-2,
    gaussian_rate=1.0,
    weight_decay=0.1,
    feature_noise=0.5,
)
LOSSES = LossParams(
    ssim=0.2, mouth=1.0, alpha=0.05, motion=20.0, size=1e-4, temporal=0.02, stray_attention=1e-3, confusion=1e-3, swap=0.2
)


def _trainee(seed: int) -> Trainee:
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
        upper_face=normal(FRAMES, 6),
        landmarks_px=torch.cat([seen[:, :2] / seen[:, 2:], seen[:, 2:]], dim=1).repeat(FRAMES, 1, 1),
        canonical_landmarks=landmarks,
        canonical_motion=0.05 * normal(FRAMES, len(landmarks), 3),
        aperture=rng.random(FRAMES).astype(np.float32),
        features=normal(FRAMES, 10),
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
        poses=data.head_to_camera,
        upper_face=data.upper_face,
        meta={},
    )
    return Trainee.of(data, state)


def _network() -> GenSync:
    torch.manual_seed(0)
    network = GenSync(MODEL, feature_size=10)
    with torch.no_grad():
        network.head_field.last.weight.normal_(std=0.3)
        network.head_field.modulation.affine.weight.normal_(std=0.3)
    return network


def test_region_mask_is_one_where_a_label_is_among_the_regions():
    labels = torch.arange(len(Region), dtype=torch.uint8).reshape(1, -1)
    expected = [float(label in {int(region) for region in HEAD}) for label in range(len(Region))]
    assert region_mask(labels, HEAD)[0].tolist() == expected
    assert region_mask(labels, HEAD).dtype == torch.float32


def test_motion_terms_equal_one_query_of_the_field_for_each_identity():
    network, trainee = _network(), _trainee(0)
    other, first = torch.randn(MODEL.identity_size), np.array([1, 4, 8])
    data, state, frames = trainee.data, trainee.state, torch.tensor([1, 2, 4, 5, 8, 9])
    terms = motion_terms(network, trainee, first, LOSSES, 0.5, torch.Generator().manual_seed(3), other)
    alone = motion_terms(network, trainee, first, LOSSES, 0.5, torch.Generator().manual_seed(3), None)
    conditions = data.upper_face[frames], pose_code(data.head_to_camera[frames], state.mean_pose)
    points = trainee.rest.expand(6, -1, -1)
    own, swapped = (
        network.deform_points(points, terms.audio, code.expand(6, -1), *conditions).means for code in (state.identity, other)
    )
    assert torch.equal(terms.audio, alone.audio)
    assert terms.parts["swap"] == pytest.approx(swap_inconsistency(own, swapped).mean().item(), rel=1e-4)
    assert terms.parts["motion"] == pytest.approx(alone.parts["motion"], rel=1e-5)
    assert terms.total.item() == pytest.approx(alone.total.item() + LOSSES.swap * terms.parts["swap"], rel=1e-5)


def _trained(folder, fail_at: int | None = None) -> dict[str, Tensor]:
    """Everything that a training changes, after it; an interruption raises."""
    fit = Fit(_network(), [_trainee(0), _trainee(1)], FIT, LOSSES, Backend("cpu", "cpu"), seed=5, train_shared=True)
    if fail_at is not None:
        head_step = fit._head_step

        def failing(step, *rest):
            if step == fail_at:
                raise InterruptedError
            return head_step(step, *rest)

        fit._head_step = failing
    fit.run(folder, "test")
    return {name: tensor.detach().clone() for name, tensor in fit._tensors().items()}


def test_interrupted_training_ends_with_the_same_bits(tmp_path, monkeypatch):
    straight = _trained(tmp_path / "straight")
    monkeypatch.setattr(fit_module, "_CHECKPOINT_INTERVAL_S", -1.0)
    with pytest.raises(InterruptedError):
        _trained(tmp_path / "resumed", fail_at=2)
    resumed = _trained(tmp_path / "resumed")
    assert {name for name, tensor in straight.items() if not torch.equal(tensor, resumed[name])} == set()
    untrained = Fit(_network(), [_trainee(0), _trainee(1)], FIT, LOSSES, Backend("cpu", "cpu"), seed=5, train_shared=True)
    same = {name for name, tensor in untrained._tensors().items() if torch.equal(tensor, straight[name])}
    assert {name.rpartition(".")[2] for name in same} <= {"mean_identity", "mean", "std", "anchors"}
