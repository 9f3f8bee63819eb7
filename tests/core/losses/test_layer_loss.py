"""The layer loss against plain torch in float64, and hand-worked numbers."""

import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gensync_core.gaussians.backends.cpu_runtime import set_default_threads
from gensync_core.losses.layer_loss import Emphasis, LayerLoss, Truth, layer_loss

NOWHERE = Emphasis((0, 0, 0, 0), 0.0)
COVERED = torch.zeros(256)
COVERED[[3, 5, 255]] = 1


class Case(NamedTuple):
    image: Tensor
    alpha: Tensor
    truth: Truth
    behind: Tensor


def case(height: int, width: int, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    labels = torch.tensor([0, 3, 4, 5, 255], dtype=torch.uint8)[torch.randint(0, 5, (height, width), generator=generator)]
    alpha = torch.rand(height, width, generator=generator)
    image = alpha[..., None] * torch.rand(height, width, 3, generator=generator)
    return Case(image, alpha, Truth(frame, labels, COVERED), torch.rand(3, generator=generator))


def backward(loss: LayerLoss) -> None:
    """Both terms with weights of their own, so that neither hides the other."""
    (3 * loss.photometric + 0.7 * loss.alpha).backward()


def relative_error(fast: Tensor, slow: Tensor) -> float:
    assert fast.grad is not None
    assert slow.grad is not None
    return float(torch.linalg.vector_norm(fast.grad.double() - slow.grad) / torch.linalg.vector_norm(slow.grad))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.2, 1.0]),
    box=st.tuples(*[st.integers(-5, 45)] * 4),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_equal_autograd_in_float64(height, width, share, box, seed):
    image, alpha, truth, behind = case(height, width, seed)
    image[0, 0], alpha[0, 0], truth.labels[0, 0] = 0, 0, 0  # |0| has gradient 0, in both terms
    fast = image.clone().requires_grad_(), alpha.clone().requires_grad_()
    slow = image.double().requires_grad_(), alpha.double().requires_grad_()
    loss = layer_loss(*fast, truth, behind, share, Emphasis(box, 2.0))
    expected = layer_loss(*slow, truth, behind.double(), share, Emphasis(box, 2.0))
    backward(loss)
    backward(expected)
    assert loss.photometric.item() == pytest.approx(expected.photometric.item(), abs=1e-6)
    assert loss.alpha.item() == pytest.approx(expected.alpha.item(), abs=1e-6)
    if height * width > 1:
        for one, other in zip(fast, slow, strict=True):
            assert relative_error(one, other) < 1e-5


def test_gradients_of_a_whole_picture_are_those_of_float64_to_a_millionth():
    image, alpha, truth, behind = case(129, 131, 0)
    fast = image.clone().requires_grad_(), alpha.clone().requires_grad_()
    slow = image.double().requires_grad_(), alpha.double().requires_grad_()
    emphasis = Emphasis((40, 50, 90, 80), 2.0)
    backward(layer_loss(*fast, truth, behind, 0.2, emphasis))
    backward(layer_loss(*slow, truth, behind.double(), 0.2, emphasis))
    for one, other in zip(fast, slow, strict=True):
        assert relative_error(one, other) < 1e-6


def test_worked_by_hand():
    """Two pixels of black, the right one inside the mask, before a white frame and something red."""
    image, alpha = torch.zeros(1, 2, 3, requires_grad=True), torch.tensor([[0.25, 0.75]], requires_grad=True)
    truth = Truth(torch.full((1, 2, 3), 255, dtype=torch.uint8), torch.tensor([[0, 3]], dtype=torch.uint8), COVERED)
    loss = layer_loss(image, alpha, truth, torch.tensor([1.0, 0.0, 0.0]), 0.0, Emphasis((1, 0, 2, 1), 2.0))
    # Left: 0.75 everywhere, off by 0.25. Right: (0.25, 0, 0), off by 0.75, 1, 1, and three times as much for the box.
    assert loss.photometric.item() == pytest.approx((3 * 0.25 + 3 * 2.75) / 6)
    assert loss.alpha.item() == pytest.approx(0.25)
    (loss.photometric + 2 * loss.alpha).backward()
    assert image.grad is not None
    assert alpha.grad is not None
    torch.testing.assert_close(image.grad, torch.tensor([[[-1.0] * 3, [-3.0] * 3]]) / 6)
    torch.testing.assert_close(alpha.grad, torch.tensor([[3 / 6 + 1, 3 / 6 - 1]]))


def test_what_is_true_and_transparent_elsewhere_costs_nothing():
    image, _, truth, behind = case(20, 30, 1)
    mask = COVERED[truth.labels.long()]
    image = truth.frame / 255 * mask[..., None]
    loss = layer_loss(image, mask, truth, behind, 0.2, Emphasis((3, 4, 9, 9), 2.0))
    assert loss.photometric.item() == pytest.approx(0, abs=1e-6)
    assert loss.alpha.item() == 0


@pytest.mark.parametrize("size", [(123, 77), (2, 5)])
def test_same_bits_for_any_number_of_threads(size):
    image, alpha, truth, behind = case(*size, 2)
    results = []
    for threads in (1, 2, 3):
        set_default_threads(threads)
        leaves = image.clone().requires_grad_(), alpha.clone().requires_grad_()
        loss = layer_loss(*leaves, truth, behind, 0.2, Emphasis((10, 20, 50, 60), 2.0))
        backward(loss)
        results.append((*(term.detach() for term in loss), *(leaf.grad for leaf in leaves)))
    set_default_threads(1)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


def test_one_term_alone_gives_gradients_too():
    image, alpha, truth, behind = case(16, 24, 3)
    alpha.requires_grad_()
    layer_loss(image, alpha, truth, behind, 0.2, NOWHERE).alpha.backward()
    assert alpha.grad is not None
    torch.testing.assert_close(alpha.grad, torch.sign(alpha.detach() - COVERED[truth.labels.long()]) / alpha.numel())


def test_views_of_other_layouts_give_the_same():
    image, alpha, truth, behind = case(16, 24, 4)
    planar = image.movedim(2, 0).contiguous().movedim(0, 2)
    here = layer_loss(planar, alpha.T.contiguous().T, truth, behind, 0.2, NOWHERE)
    assert here.photometric.item() == layer_loss(image, alpha, truth, behind, 0.2, NOWHERE).photometric.item()


def test_a_gradient_to_the_colour_behind_is_not_lost():
    image, alpha, truth, behind = case(16, 16, 5)
    behind.requires_grad_()
    layer_loss(image, alpha, truth, behind, 0.2, NOWHERE).photometric.backward()
    assert behind.grad is not None
    assert behind.grad.abs().min() > 0


def test_wrong_arguments_are_refused():
    image, alpha, truth, behind = case(16, 16, 6)
    with pytest.raises(ValueError, match="image, alpha and behind"):
        layer_loss(image[:-1], alpha, truth, behind, 0.2, NOWHERE)
    with pytest.raises(ValueError, match="frame, labels and covered"):
        layer_loss(image, alpha, truth._replace(labels=truth.labels[:-1]), behind, 0.2, NOWHERE)
    with pytest.raises(ValueError, match="one dtype"):
        layer_loss(image, alpha.double(), truth, behind, 0.2, NOWHERE)
    with pytest.raises(ValueError, match="uint8"):
        layer_loss(image, alpha, truth._replace(frame=image), behind, 0.2, NOWHERE)
    with pytest.raises(ValueError, match="ssim_weight"):
        layer_loss(image, alpha, truth, behind, 1.5, NOWHERE)


def test_runs_without_numba():
    """In plain torch: the reference renderer is then all there is, and a training must go on."""
    program = """
import sys
sys.modules["numba"] = None
import torch
from gensync_core.losses.layer_loss import Emphasis, Truth, layer_loss
image = torch.zeros(4, 5, 3, requires_grad=True)
truth = Truth(torch.full((4, 5, 3), 255, dtype=torch.uint8), torch.zeros(4, 5, dtype=torch.uint8), torch.zeros(256))
photometric, alpha = layer_loss(image, torch.ones(4, 5), truth, torch.zeros(3), 0.0, Emphasis((0, 0, 5, 4), 1.0))
photometric.backward()
print(photometric.item(), alpha.item(), image.grad.sum().item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [float(word) for word in done.stdout.split()] == pytest.approx([2.0, 1.0, -2.0])
