from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from made_up_training import MODEL

from gensync_core.errors import ArtefactBroken
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.geometry.camera import Intrinsics
from gensync_core.geometry.motion import Motion
from gensync_core.model.dense_triplane import DenseTriplane
from gensync_core.model.gensync import GenSync
from gensync_core.model.hash_triplane import HashTriplane
from gensync_core.model.model_params import ModelParams
from gensync_core.model.speaker_state import SpeakerState, fit_aligner

PARAMS = replace(MODEL, deform=["mean", "opacity", "scale", "quat"], triplane_levels=3)


def _cloud(count):
    return GaussianCloud(
        means=torch.rand(count, 3) - 0.5,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        log_scales=torch.full((count, 3), -3.0),
        logit_opacities=torch.zeros(count),
        sh=torch.zeros(count, 1, 3),
    )


@pytest.fixture
def state():
    torch.manual_seed(1)
    pose = torch.eye(4)
    pose[2, 3] = 5
    landmarks = np.random.default_rng(0).normal(size=(468, 3))
    return SpeakerState(
        head=_cloud(20),
        torso=_cloud(10),
        identity=torch.randn(6),
        aligner=fit_aligner(landmarks, landmarks),
        torso_centre=torch.zeros(3),
        torso_half_size=1.0,
        plate=torch.zeros(8, 8, 3),
        camera=Intrinsics(fx=10.0, fy=10.0, cx=4.0, cy=4.0, width=8, height=8),
        mean_pose=pose,
        take=Motion(pose.repeat(3, 1, 1), torch.eye(4).repeat(3, 1, 1), torch.zeros(3, 6)),
        meta={"speaker": "a"},
    )


@pytest.fixture
def network():
    torch.manual_seed(0)
    return GenSync(PARAMS, feature_size=12)


SWITCHES = [{}, {"triplane": "dense"}, {"attention": False}, {"torso_field": False}, {"fusion": "add"}, {"smoothing": False}]


def _switched(**switches):
    torch.manual_seed(0)
    return GenSync(replace(PARAMS, **switches), feature_size=12)


def _audio(network):
    return network.encode_audio(torch.randn(30, 12), torch.tensor([5]))


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_untrained_fields_are_the_identity(state, switches):
    network = _switched(**switches)
    pose = state.mean_pose[None].clone()
    pose[:, 0, 3] += 0.3
    head, moved = network.deform_head(state, _audio(network), torch.randn(1, 6), pose)
    torso = network.deform_torso(state, pose, torch.eye(4)[None])
    for before, after in ((state.head, head), (state.torso, torso)):
        for (name, old), (_, new) in zip(before.named(), after.named(), strict=True):
            assert torch.equal(old, new), name
    assert moved.means.abs().max() == 0


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_parameter_receives_gradient(state, switches):
    network = _switched(**switches)
    with torch.no_grad():
        for field in (network.head_field.last, network.torso_field.layers[-1]):
            field.weight.normal_()
        network.head_field.modulation.affine.weight.normal_(std=0.1)
        for name, parameter in network.named_parameters():
            if "triplane" in name:
                parameter.normal_()
    pose = state.mean_pose[None].clone()
    pose[:, 0, 3] += 0.3
    state.identity.requires_grad_()
    head, _ = network.deform_head(state, _audio(network), torch.randn(1, 6), pose)
    torso = network.deform_torso(state, pose, torch.eye(4)[None])
    sum((tensor**2).sum() for cloud in (head, torso) for _, tensor in cloud.named()).backward()
    without = {
        name for name, parameter in network.named_parameters() if parameter.grad is None or parameter.grad.abs().max() == 0
    }
    # A bias that all logits of a softmax share moves nothing.
    idle = {"audio_encoder.pooling.4.bias", "head_field.attention.key.bias"}
    if not network.params.torso_field:
        idle |= {name for name in without if name.startswith("torso_field")}
    assert without <= idle
    assert state.identity.grad.abs().max() > 0


def test_identities_in_a_batch_do_not_mix(network):
    with torch.no_grad():
        network.head_field.last.weight.normal_()
    points, audio, z = torch.rand(3, 5, 3), torch.randn(3, 8), torch.randn(3, 6)
    face, pose = torch.randn(3, 6), torch.randn(3, 12)
    order = torch.tensor([2, 0, 1])
    straight = network.deform_points(points, audio, z, face, pose).means
    permuted = network.deform_points(points[order], audio[order], z[order], face[order], pose[order]).means
    torch.testing.assert_close(straight[order], permuted)


def test_without_its_field_the_torso_bends_nowhere(state):
    pose = state.mean_pose[None].clone()
    pose[:, 0, 3] += 0.3
    for torso_field in (True, False):
        network = _with_bending_torso(torso_field=torso_field)
        torso = network.deform_torso(state, pose, torch.eye(4)[None])
        assert torch.equal(torso.means, state.torso.means) is not torso_field
        assert torch.equal(torso.quats, state.torso.quats) is not torso_field


@pytest.mark.parametrize(("head_moves", "body_moves"), [(True, False), (False, True)])
def test_a_torso_bends_when_head_or_body_moves_and_not_in_the_reference_frame(state, head_moves, body_moves):
    network, still, shifted = _with_bending_torso(), torch.eye(4)[None], torch.eye(4)[None].clone()
    shifted[:, 0, 2] = 0.1
    rest = network.deform_torso(state, state.mean_pose[None], still)
    head, body = (shifted if moves else still for moves in (head_moves, body_moves))
    moved = network.deform_torso(state, head @ state.mean_pose, body)
    assert (moved.means - rest.means).abs().max() > 1e-3
    code = network.torso_field.pose_code(state.mean_pose[None], still, state.mean_pose)
    assert code.abs().max() < 1e-5


def _with_bending_torso(**switches) -> GenSync:
    network = _switched(**switches)
    with torch.no_grad():
        network.torso_field.layers[-1].weight.normal_()  # pyright: ignore[reportCallIssue]
        network.torso_field.triplane.table.normal_()
    return network


def test_dense_planes_are_as_large_as_the_hash_table_and_replace_it():
    params = replace(PARAMS, triplane_levels=8, triplane_finest=128, triplane_log2_table=14)
    hashed, dense = (GenSync(replace(params, triplane=triplane), 12).head_field.triplane for triplane in ("hash", "dense"))
    assert isinstance(hashed, HashTriplane)
    assert isinstance(dense, DenseTriplane)
    assert 0.97 < dense.table.numel() / hashed.table.numel() <= 1
    assert dense.out_size == hashed.out_size


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_network_and_speaker_round_trip(state, tmp_path, switches):
    network = _switched(**switches)
    network.save(tmp_path / "shared.safetensors", {"cohort": ["a"]})
    state.save(tmp_path / "a.safetensors")
    loaded, meta = GenSync.load(tmp_path / "shared.safetensors")
    speaker = SpeakerState.load(tmp_path / "a.safetensors")
    assert meta["cohort"] == ["a"]
    assert speaker.meta["speaker"] == "a"
    audio = torch.randn(1, 8)
    before, _ = network.deform_head(state, audio, torch.zeros(1, 6), state.mean_pose[None])
    after, _ = loaded.deform_head(speaker, audio, torch.zeros(1, 6), speaker.mean_pose[None])
    torch.testing.assert_close(before.means, after.means)


def test_a_speaker_file_is_not_a_network(state, tmp_path):
    state.save(tmp_path / "a.safetensors")
    with pytest.raises(ArtefactBroken, match="not a shared network"):
        GenSync.load(tmp_path / "a.safetensors")


def test_aligner_puts_scaled_faces_on_top_of_each_other():
    mesh = np.random.default_rng(0).normal(size=(468, 3))
    stretched = mesh * [1.3, 0.8, 1.1] + [0.1, -0.2, 0.3]
    one, other = fit_aligner(mesh, mesh), fit_aligner(stretched, mesh)
    torch.testing.assert_close(
        one.to_box(torch.tensor(mesh, dtype=torch.float32)),
        other.to_box(torch.tensor(stretched, dtype=torch.float32)),
        atol=1e-5,
        rtol=0,
    )
    motion = torch.randn(4, 3)
    torch.testing.assert_close(other.motion_from_box(other.motion_to_box(motion)), motion)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fusion", "times"),
        ("triplane", "sparse"),
        ("deform", []),
        ("deform", ["colour"]),
        ("mean_scale", 0.0),
        ("rank", 0),
        ("hidden_size", 24),
    ],
)
def test_bad_architectures_are_refused(key, value):
    with pytest.raises(ValueError, match=key):
        ModelParams(**{**asdict(PARAMS), key: value})


def test_the_torso_hears_where_shoulders_go_and_not_what_a_body_does_elsewhere(state):
    field, still = _with_bending_torso().torso_field, torch.eye(4)[None]
    stretched = still.clone()
    place = (field.body_anchors @ state.mean_pose[:3, :3].T + state.mean_pose[:3, 3])[1]
    stretched[0, 1, 1], stretched[0, 1, 2] = 1.2, -0.2 * place[1] / place[2]  # taller, about the height of the shoulders
    at_rest = field.pose_code(state.mean_pose[None], still, state.mean_pose)
    shifted = still.clone()
    shifted[0, 0, 2] = 0.1 / place[2]  # a centimetre to the left, as the picture shows it
    assert not at_rest.any()
    assert field.pose_code(state.mean_pose[None], shifted, state.mean_pose)[0, 6::2].max() == pytest.approx(1.0, abs=1e-4)
    assert field.pose_code(state.mean_pose[None], stretched, state.mean_pose)[0, 9].abs() < 1e-4
