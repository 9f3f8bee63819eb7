import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from gensync_core.gaussians.backends.cpu_runtime import set_default_threads
from gensync_core.losses.photometric import l1_ssim, ssim


def image_pair(height: int, width: int, seed: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, noise = torch.rand(2, height, width, channels, generator=generator)
    return image, 0.7 * image + 0.3 * noise


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.2, 1.0]),
    channels=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_value_and_gradient_equal_autograd_in_float64(height, width, share, channels, seed):
    image, target = image_pair(height, width, seed, channels)
    image[0, 0] = target[0, 0]  # |0| has gradient 0
    fast = image.clone().requires_grad_()
    slow = image.double().requires_grad_()
    value = l1_ssim(fast, target, share)
    expected = l1_ssim(slow, target.double(), share)
    (3 * value).backward()
    (3 * expected).backward()
    assert value.item() == pytest.approx(expected.item(), abs=2e-6)
    assert fast.grad is not None
    assert slow.grad is not None
    error = torch.linalg.vector_norm(fast.grad.double() - slow.grad)
    assert error <= 1e-4 * torch.linalg.vector_norm(slow.grad) + 1e-6 / height / width


def test_ssim_equals_that_of_scikit_image():
    # A black frame wider than the window: theirs reflects at the border and ours adds zeros, here both see zeros.
    image, target = torch.zeros(2, 48, 40, 3)
    image[10:-10, 10:-10], target[10:-10, 10:-10] = image_pair(28, 20, 0)
    _, similarity = structural_similarity(
        image.numpy(),
        target.numpy(),
        channel_axis=2,
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    assert ssim(image, target).item() == pytest.approx(float(similarity.mean()), abs=1e-5)


def test_equal_images_cost_nothing_and_ssim_is_one():
    image, _ = image_pair(20, 30, 1)
    assert l1_ssim(image, image).item() == pytest.approx(0, abs=1e-6)
    assert ssim(image, image).item() == pytest.approx(1, abs=1e-6)


def test_same_bits_for_any_number_of_threads():
    image, target = image_pair(123, 77, 2)
    results = []
    for threads in (1, 2, 3):
        set_default_threads(threads)
        leaf = image.clone().requires_grad_()
        loss = l1_ssim(leaf, target, 0.2)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    set_default_threads(1)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_views_of_other_layouts_give_the_same():
    image, target = image_pair(16, 24, 3)
    planar = image.movedim(2, 0).contiguous().movedim(0, 2)
    assert l1_ssim(planar, target.flip(0).flip(0), 0.2).item() == l1_ssim(image, target, 0.2).item()


def test_a_gradient_to_the_target_is_not_lost():
    image, target = image_pair(16, 16, 4)
    target.requires_grad_()
    l1_ssim(image, target).backward()
    assert target.grad is not None
    assert target.grad.abs().max() > 0


def test_wrong_arguments_are_refused():
    image, target = image_pair(16, 16, 5)
    with pytest.raises(ValueError, match="one size"):
        l1_ssim(image, target[:-1])
    with pytest.raises(ValueError, match="dtype"):
        l1_ssim(image, target.double())
    with pytest.raises(ValueError, match="ssim_weight"):
        l1_ssim(image, target, 1.5)
    with pytest.raises(ValueError, match="one size"):
        l1_ssim(torch.zeros(0, 4, 3), torch.zeros(0, 4, 3))


def test_numpy_sees_no_nan_in_flat_images():
    flat = torch.full((20, 20, 3), 0.5).requires_grad_()
    l1_ssim(flat, torch.zeros(20, 20, 3)).backward()
    assert flat.grad is not None
    assert np.isfinite(flat.grad.numpy()).all()
