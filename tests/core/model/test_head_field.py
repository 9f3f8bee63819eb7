"""The field as it is computed, folded and in kernels, against its plain definition: attention, layers and modulations."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gensync_core.gaussians.backends.cpu_runtime import set_default_threads
from gensync_core.model.dense_triplane import DenseTriplane
from gensync_core.model.field_folding import FieldLayers, fold
from gensync_core.model.hash_triplane import HashTriplane
from gensync_core.model.head_field import HeadField
from gensync_core.model.kernel_layout import CHUNK
from gensync_core.model.model_params import DEFORMABLE

IDENTITY_SIZE, TOKEN_SIZE, HIDDEN_SIZE, MOUTH_RADIUS = 6, 8, 32, 0.8


def head_field(
    deform: tuple[str, ...] = DEFORMABLE, seed: int = 0, *, attention: bool = True, dense: bool = False
) -> HeadField:
    """A field in float64 whose parameters are all of a size that shows."""
    triplane = DenseTriplane(2, 4, 1500) if dense else HashTriplane(3, 4, 16, 8, 2)
    sizes = IDENTITY_SIZE, TOKEN_SIZE, HIDDEN_SIZE
    field = HeadField(triplane, *sizes, deform, 0.05, MOUTH_RADIUS, attention=attention).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.normal_(std=0.4, generator=generator)
    return field


def conditions(batch: int, count: int, seed: int = 1) -> list[Tensor]:
    """Points of each frame, fused code, identity, upper face, pose."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [TOKEN_SIZE, IDENTITY_SIZE, 6, 12]
    codes = [torch.randn(batch, size, generator=generator, dtype=torch.float64) for size in sizes]
    return [torch.rand(batch, count, 3, generator=generator, dtype=torch.float64) * 2 - 1, *codes]


def plain(field: HeadField, points: Tensor, fused: Tensor, identity: Tensor, upper_face: Tensor, pose: Tensor) -> list[Tensor]:
    """Outputs side by side, and the audio attention, from the layers one by one."""
    features = field.triplane(points.reshape(-1, 3)).reshape(*points.shape[:2], -1)
    features = torch.cat([features, points], dim=-1).expand(len(fused), -1, -1)
    codes = [fused, field.identity_token(identity), field.eye_token(upper_face), field.pose_token(pose)]
    tokens = field.normalise(torch.stack([*codes, field.null_token.expand(len(fused), -1)], dim=1))
    window = field.mouth_window(points.reshape(-1, 3)).reshape(*points.shape[:2], 1)
    attended = field.attention(features, tokens, window * field.barred)
    hidden = functional.leaky_relu(field.first(torch.cat([features, attended.values], dim=-1)), 0.02)
    hidden = field.modulation(field.frame_modulation(field.second(hidden), fused), identity)
    return [field.last(functional.leaky_relu(hidden, 0.02)) * field.units, attended.weights[..., 0]]


def folded(field: HeadField, *inputs: Tensor) -> list[Tensor]:
    moved = field(*inputs)
    parts = {
        "mean": moved.means,
        "opacity": None if moved.logit_opacities is None else moved.logit_opacities[..., None],
        "scale": moved.log_scales,
        "quat": moved.quats,
    }
    values = [parts[name] for name in field.deform]
    return [torch.cat([value for value in values if value is not None], dim=-1), moved.audio_attention]


def results(run, field: HeadField, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Outputs and all gradients of a run, by name."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    outputs = run(field, *leaves)
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs]
    wanted = {f"input {number}": leaf for number, leaf in enumerate(leaves)} | dict(field.named_parameters())
    # Without attention its map is a constant.
    learned, coming = zip(*((o, u) for o, u in zip(outputs, upstream, strict=True) if o.requires_grad), strict=True)
    gradients = torch.autograd.grad(learned, list(wanted.values()), coming)
    return dict(zip(["values", "attention", *wanted], [*outputs, *gradients], strict=True))


@pytest.mark.parametrize("deform", [DEFORMABLE, ("mean",), ("quat", "mean")])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("attention", "dense"), [(True, False), (False, False), (True, True)])
def test_folded_form_equals_the_plain_one_in_float64(deform, shared, attention, dense):
    field, (points, *codes) = head_field(deform, attention=attention, dense=dense), conditions(3, 10)
    inputs = [points[:1] if shared else points, *codes]
    expected = results(plain, field, inputs)
    for name, value in results(folded, field, inputs).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("batch", "count", "shared"), [(1, 2 * CHUNK + 7, False), (3, 70, False), (3, 70, True), (2, 1, True)])
@pytest.mark.parametrize(("attention", "dense"), [(True, False), (False, False), (True, True)])
def test_kernels_equal_the_plain_form_in_float64(batch, count, shared, attention, dense):
    exact, (points, *codes) = head_field(attention=attention, dense=dense), conditions(batch, count)
    inputs = [points[:1] if shared else points, *codes]
    expected = results(plain, exact, inputs)
    fast = results(folded, copy.deepcopy(exact).float(), [tensor.float() for tensor in inputs])
    for name, value in fast.items():
        error = torch.linalg.vector_norm(value.double() - expected[name])
        # The tri-plane's slope jumps at the cells' borders, where float32 may take the other side.
        tolerance = 1e-2 if name == "input 0" else 1e-5
        # The gradient of the keys' bias is 0: it moves all logits of a head alike.
        assert error <= tolerance * torch.linalg.vector_norm(expected[name]) + (1e-4 if name == "attention.key.bias" else 0), (
            name
        )


def test_the_mouth_hears_no_pose_and_no_brows():
    field, (_, fused, identity, upper_face, pose) = head_field(), conditions(2, 1)
    points = torch.stack([field.mouth.double(), field.mouth.double() + torch.tensor([0.0, -1.5, 0.3]).double()])[None]
    same = [code[:1].expand(2, -1) for code in (fused, identity)]
    mouth, brow = field(points, *same, upper_face, pose).means.unbind(dim=1)
    torch.testing.assert_close(mouth[0], mouth[1], rtol=0, atol=1e-7)
    assert (brow[0] - brow[1]).abs().max() > 1e-3
    mouth, _ = field(points, fused, *same[1:], upper_face, pose).means.unbind(dim=1)
    assert (mouth[0] - mouth[1]).abs().max() > 1e-3
    field.mouth_radius = 0.0
    mouth, _ = field(points, *same, upper_face, pose).means.unbind(dim=1)
    assert (mouth[0] - mouth[1]).abs().max() > 1e-3


def test_without_attention_all_that_is_heard_is_heard_alike():
    field, (points, *codes) = head_field(attention=False), conditions(2, 9)
    points[:, 0] = field.mouth
    points[:, 1] = field.mouth + torch.tensor([0.0, -1.5, 0.3])
    heard = field(points, *codes).audio_attention
    torch.testing.assert_close(heard[:, :2], torch.tensor([[1 / 3, 1 / 5]] * 2).double(), rtol=0, atol=1e-5)
    assert head_field()(points, *codes).audio_attention[:, 1:].std() > 1e-2
    field.mouth_radius = 0.0
    torch.testing.assert_close(field(points, *codes).audio_attention, torch.full((2, 9), 0.2, dtype=torch.float64))
    assert {name for name, _ in field.attention.named_parameters()} == {"value.weight", "value.bias"}


def test_same_bits_for_any_number_of_threads():
    inputs = [tensor.float() for tensor in conditions(2, 3 * CHUNK)]
    field, runs = head_field().float(), []
    for threads in (1, 2, 3):
        set_default_threads(threads)
        runs.append(results(folded, field, inputs))
    set_default_threads(1)
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(value, other[name]), name


def test_shared_points_are_those_of_every_frame():
    field, (points, *codes) = head_field().float(), [tensor.float() for tensor in conditions(3, 21)]
    once, repeated = field(points[:1], *codes), field(points[:1].repeat(3, 1, 1), *codes)
    torch.testing.assert_close(once.means, repeated.means, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(once.audio_attention, repeated.audio_attention, rtol=1e-4, atol=1e-6)


def test_frozen_layers_get_no_gradient_and_points_still_do():
    field, (points, *codes) = head_field().float(), [tensor.float() for tensor in conditions(1, 9)]
    field.requires_grad_(False)
    points.requires_grad_()
    field(points, *codes).means.sum().backward()
    assert points.grad is not None
    assert points.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in field.parameters())


def test_field_runs_without_numba():
    """In plain torch, with the same result: the reference renderer is then all there is, and a training must go on."""
    program = """
import sys
sys.modules["numba"] = None
import torch
from gensync_core.losses.photometric import l1_ssim
from gensync_core.model.hash_triplane import HashTriplane
from gensync_core.model.head_field import HeadField
from gensync_core.model.model_params import DEFORMABLE
torch.manual_seed(0)
field = HeadField(HashTriplane(3, 4, 16, 8, 2), 6, 8, 32, DEFORMABLE, 0.05, 0.8)
torch.nn.init.normal_(field.last.weight)
out = field(*(torch.rand(1, *size) for size in ((9, 3), (8,), (6,), (6,), (12,)))).means
out.sum().backward()
print(out.detach().sum().item(), l1_ssim(out.detach(), torch.zeros(1, 9, 3)).item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here: dict = {}
    exec(program.replace('sys.modules["numba"] = None', "").replace("print(", "result = ("), here)
    assert [float(word) for word in done.stdout.split()] == pytest.approx(here["result"], rel=1e-4)


def test_more_tokens_than_lanes_are_refused():
    field = head_field()
    attention = field.attention
    layers = FieldLayers(attention.query, attention.key, attention.value, field.first, field.second, field.last)
    tokens = torch.zeros(1, 9, TOKEN_SIZE, dtype=torch.float64)
    modulation = torch.zeros(1, 2 * HIDDEN_SIZE, dtype=torch.float64)
    with pytest.raises(ValueError, match="at most 8 tokens"):
        fold(tokens, (modulation, modulation), layers, field.units, torch.zeros(9, dtype=torch.float64), attention.heads)
