"""The static start on a made-up clip: a textured disc for a head over a plain body."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.face.canonical import canonical_face
from gensync_core.face.regions import BODY, HEAD, Region
from gensync_core.gaussians.rasterize import Backend
from gensync_core.geometry.camera import Intrinsics
from gensync_core.media.frames import FrameStore
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.params import load_params
from gensync_core.training.coarse import fit_coarse, static_terms
from gensync_core.training.schedules import CoarseParams

SIZE, FRAMES, STEPS = 40, 12, 12
REFERENCE = Backend("reference", "cpu")
SHIPPED = load_params(Path(__file__).parents[3] / "params.yaml").coarse
FINER = replace(SHIPPED.densification, start=1, stop=10, every=3, grow_grad2d=1e-6, grow_scale3d=0.05, max_gaussians=150)
PARAMS = replace(SHIPPED, steps=STEPS, head_gaussians=100, torso_gaussians=60, views=2, densify=False, densification=FINER)


@pytest.fixture(scope="module")
def data() -> ClipDataset:
    vertices, _ = canonical_face()
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[: len(vertices)] = vertices
    pose = torch.eye(4)
    pose[2, 3] = 6.0
    poses = pose.repeat(FRAMES, 1, 1)
    poses[:, 0, 3] = torch.linspace(-0.1, 0.1, FRAMES)
    camera = Intrinsics(fx=80.0, fy=80.0, cx=SIZE / 2, cy=SIZE / 2, width=SIZE, height=SIZE)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.full((SIZE, SIZE), int(Region.BACKGROUND), np.uint8)
    labels[rows > 28] = int(BODY[0])
    labels[(rows - 18) ** 2 + (columns - 20) ** 2 < 120] = int(HEAD[0])
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[rows > 28] = (20, 60, 160)
    checks = 60 + 150 * ((rows // 3 + columns // 3) % 2)
    picture[labels == int(HEAD[0])] = np.stack([checks, 255 - checks, checks], -1)[labels == int(HEAD[0])]
    moved = torch.from_numpy(landmarks) + poses[:, None, :3, 3]
    landmarks_px = torch.cat([moved[..., :2] / moved[..., 2:] * 80 + SIZE / 2, moved[..., 2:]], dim=-1)
    return ClipDataset(
        frames=FrameStore(np.repeat(picture[None], FRAMES, axis=0)),
        masks=FrameStore(np.repeat(labels[None], FRAMES, axis=0)),
        camera=camera,
        head_to_camera=poses,
        body_to_camera=torch.eye(4).repeat(FRAMES, 1, 1),
        reference_frame=0,
        upper_face=torch.zeros(FRAMES, 6),
        landmarks_px=landmarks_px,
        canonical_landmarks=torch.from_numpy(landmarks),
        canonical_motion=torch.zeros(FRAMES, 478, 3),
        aperture=np.linspace(0, 0.3, FRAMES).astype(np.float32),
        features=torch.zeros(FRAMES, 4),
        silence=torch.zeros(FRAMES, 4),
        plate=torch.zeros(SIZE, SIZE, 3),
        num_train=FRAMES - 2,
    )


def fit(data: ClipDataset, params: CoarseParams) -> SpeakerState:
    state, log = fit_coarse(data, params, 8, REFERENCE, 0)
    assert {name for _, name, _ in log.rows} == {"loss", "photometric", "alpha", "torso", "torso_alpha"}
    return state


def test_fitting_lowers_the_loss_and_leaves_plain_tensors(data: ClipDataset):
    losses = [
        static_terms(data, fit(data, replace(PARAMS, steps=steps)), 0, PARAMS, REFERENCE, torch.zeros(3)).total.item()
        for steps in (1, 4 * STEPS)
    ]
    assert losses[1] < 0.9 * losses[0]
    state = fit(data, replace(PARAMS, steps=1))
    assert not any(tensor.requires_grad for cloud in (state.head, state.torso) for _, tensor in cloud.named())


def test_gaussians_stay_as_many_as_they_are_without_densification(data: ClipDataset):
    first, last = fit(data, replace(PARAMS, steps=1)), fit(data, PARAMS)
    assert (len(first.head), len(first.torso)) == (len(last.head), len(last.torso))


def test_densification_refines_the_head_up_to_its_bound_and_leaves_the_torso_alone(data: ClipDataset):
    plain, refined = fit(data, PARAMS), fit(data, replace(PARAMS, densify=True))
    assert len(plain.head) < 120
    assert len(refined.head) == 150
    assert len(refined.torso) == len(plain.torso)


def test_colours_of_a_higher_degree_are_fitted_and_survive_a_file(data: ClipDataset, tmp_path: Path):
    state = fit(data, replace(PARAMS, sh_degree=1, densify=True))
    assert state.head.sh.shape == (150, 4, 3)
    assert state.torso.sh.shape[1] == 1, "the camera does not turn around the torso"
    assert state.head.sh[:, 1:].abs().max() > 0
    state.save(tmp_path / "coarse.safetensors")
    back = SpeakerState.load(tmp_path / "coarse.safetensors")
    assert torch.equal(back.head.sh, state.head.sh)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("views", 0), ("ssim", 1.5), ("ssim", -0.1), ("mouth", -1.0), ("alpha", -1.0), ("sh_degree", 3)],
)
def test_parameters_out_of_range_are_refused(name: str, value: float):
    with pytest.raises(ValueError, match=name):
        replace(PARAMS, **{name: value})
