import numpy as np
import pytest

from gensync_core.evaluation.image_metrics import crop, dilate, head_over_truth, psnr, ssim, unit_range


def flat(value, size=16):
    return np.full((size, size, 3), value, dtype=np.float32)


def test_psnr_of_a_uniform_error_is_twenty_db_per_tenth():
    assert psnr(flat(0.5), flat(0.6)) == pytest.approx(20.0, abs=1e-4)
    assert psnr(flat(0.5), flat(0.51)) == pytest.approx(40.0, abs=1e-3)
    assert psnr(flat(0.5), flat(0.5)) == float("inf")


def test_psnr_of_bytes_and_of_floats_agree():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (12, 12, 3), dtype=np.uint8) for _ in range(2))
    assert psnr(a, b) == pytest.approx(psnr(unit_range(a), unit_range(b)), abs=1e-9)


def test_a_mask_keeps_errors_elsewhere_out():
    image, target = flat(0.5), flat(0.5)
    image[:8] = 0.6
    upper = np.zeros((16, 16), dtype=bool)
    upper[:8] = True
    assert psnr(image, target, upper) == pytest.approx(20.0, abs=1e-4)
    assert psnr(image, target, ~upper) == float("inf")
    assert psnr(image, target) == pytest.approx(20 + 10 * np.log10(2), abs=1e-4)
    assert np.isnan(psnr(image, target, np.zeros((16, 16), dtype=bool)))


def test_sizes_must_agree():
    with pytest.raises((ValueError, TypeError)):  # the shape checker of the tests may be first
        psnr(flat(0), flat(0, 8))
    with pytest.raises(ValueError, match="11 px"):
        ssim(flat(0, 8), flat(0, 8))


def test_ssim_of_two_flat_images_is_the_luminance_term():
    c1 = 0.01**2
    expected = (2 * 0.4 * 0.6 + c1) / (0.4**2 + 0.6**2 + c1)
    assert ssim(flat(0.4), flat(0.6)) == pytest.approx(expected, abs=1e-5)
    assert ssim(flat(0.4), flat(0.4)) == pytest.approx(1.0)


def test_ssim_on_a_mask_sees_only_the_mask():
    rng = np.random.default_rng(1)
    target = rng.random((40, 40, 3)).astype(np.float32)
    image = target.copy()
    image[:, :12] = rng.random((40, 12, 3))
    right = np.zeros((40, 40), dtype=bool)
    right[:, 20:] = True  # more than half a window away from the change
    assert ssim(image, target, right) == pytest.approx(1.0, abs=1e-6)
    assert ssim(image, target, ~right) < 0.8


def test_a_missing_head_does_not_let_the_true_face_shine_through():
    truth = flat(0.8)
    head = np.zeros((16, 16), dtype=bool)
    head[4:12, 4:12] = True
    nothing = head_over_truth(flat(0.2), flat(0.0), np.zeros((16, 16), dtype=np.float32), truth, head)
    assert nothing[6, 6] == pytest.approx([0.2] * 3)
    assert nothing[0, 0] == pytest.approx([0.8] * 3)


def test_a_head_that_sticks_out_covers_the_true_surroundings():
    alpha = np.zeros((16, 16), dtype=np.float32)
    alpha[0, 0] = 0.25
    composite = head_over_truth(flat(0.2), flat(0.1) * alpha[..., None] * 4, alpha, flat(0.8), np.zeros((16, 16), dtype=bool))
    assert composite[0, 0] == pytest.approx([0.1 + 0.75 * 0.8] * 3)


def test_crop_and_dilate():
    image = np.arange(5 * 6 * 3).reshape(5, 6, 3)
    assert (crop(image, (1, 2, 4, 5)) == image[2:5, 1:4]).all()
    dot = np.zeros((7, 7), dtype=bool)
    dot[3, 3] = True
    assert dilate(dot, 0).sum() == 1
    assert dilate(dot, 2).sum() == 13
