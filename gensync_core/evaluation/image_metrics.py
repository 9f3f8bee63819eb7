"""How close a rendered image is to the true one: PSNR and SSIM on the whole frame, on a region, or on a crop.

The three differ by up to 9 dB on the same video, so every number says which region it was taken on. Images are float
in 0..1 or uint8, [H, W, 3].
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

SSIM_WINDOW_PX = 11


def unit_range(image: Shaped[np.ndarray, "H W C"]) -> Float32[np.ndarray, "H W C"]:
    """Float32 in 0..1 from uint8 (0..255) or from floats, which are clipped."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    return np.clip(image, 0, 1).astype(np.float32)


def psnr(
    image: Shaped[np.ndarray, "H W C"], target: Shaped[np.ndarray, "H W C"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB, peak 1; infinite for equal images.

    Args:
        image: rendered image.
        target: true image of the same size.
        mask: pixels that count; all of them where None. NaN is returned for a mask without any pixel.

    Raises:
        ValueError: the sizes differ.
    """
    _check_sizes(image, target, mask)
    squared = np.square(unit_range(image).astype(np.float64) - unit_range(target))
    if mask is not None:
        squared = squared[mask]
    if squared.size == 0:
        return float("nan")
    error = float(squared.mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(
    image: Shaped[np.ndarray, "H W C"], target: Shaped[np.ndarray, "H W C"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Structural similarity, -1..1, with the Gaussian window (sigma 1.5 px) and constants of its authors.

    With a mask: mean of the similarity map over the mask's pixels. Windows at its border see pixels beyond it.

    Raises:
        ValueError: the sizes differ, or a side is shorter than the window of 11 px.
    """
    _check_sizes(image, target, mask)
    if min(image.shape[:2]) < SSIM_WINDOW_PX:
        raise ValueError(f"ssim needs at least {SSIM_WINDOW_PX} px a side, got {image.shape[1]}x{image.shape[0]}")
    from skimage.metrics import structural_similarity

    result: Any = structural_similarity(
        unit_range(image),
        unit_range(target),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=2,
        full=mask is not None,
    )
    if mask is None:
        return float(result)
    if not mask.any():
        return float("nan")
    return float(result[1].mean(axis=2, dtype=np.float64)[mask].mean())


def crop(image: Shaped[np.ndarray, "H W C"], box: tuple[int, int, int, int]) -> Shaped[np.ndarray, "h w C"]:
    """The part of an image inside x0, y0, x1, y1 (px, the last two exclusive)."""
    x0, y0, x1, y1 = box
    return image[y0:y1, x0:x1]


def dilate(mask: Bool[np.ndarray, "H W"], margin_px: int) -> Bool[np.ndarray, "H W"]:
    """The mask grown by `margin_px` in a diamond (4-neighbourhood)."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, iterations=margin_px) if margin_px > 0 else mask


def head_over_truth(
    image: Shaped[np.ndarray, "H W 3"],
    head_image: Shaped[np.ndarray, "H W 3"],
    head_alpha: Shaped[np.ndarray, "H W"],
    truth: Shaped[np.ndarray, "H W 3"],
    true_head: Bool[np.ndarray, "H W"],
) -> Float32[np.ndarray, "H W 3"]:
    """The rendered head over the true torso and background.

    Behind the rendered head stands the truth where no head is in it, and the rendering's own backdrop inside the true
    head: a transparent rendering must not let the true face shine through.

    Args:
        image: whole rendered frame.
        head_image: its head alone, premultiplied by alpha.
        head_alpha: opacity of the head, 0..1.
        truth: true frame.
        true_head: pixels of the head in the true frame.

    Source: own choice; the papers composite over the true torso without saying what stands behind a transparent head.
    """
    over_truth = unit_range(head_image) + (1 - np.clip(head_alpha, 0, 1)[..., None]) * unit_range(truth)
    return np.where(true_head[..., None], unit_range(image), np.clip(over_truth, 0, 1)).astype(np.float32)


def _check_sizes(image: np.ndarray, target: np.ndarray, mask: np.ndarray | None) -> None:
    if image.shape != target.shape or (mask is not None and mask.shape != image.shape[:2]):
        shapes = f"{image.shape}, {target.shape}" + (f", mask {mask.shape}" if mask is not None else "")
        raise ValueError(f"sizes differ: {shapes}")
