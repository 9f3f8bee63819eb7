"""The figures of one evaluation (`figures.METRICS`): gathered frame by frame, then put together under stable names."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Shaped

from gensync_core.dataset.clip_dataset import mouth_box
from gensync_core.evaluation import image_metrics, jitter, lip_sync
from gensync_core.evaluation.neck import neck_figures
from gensync_core.face.regions import HEAD
from gensync_core.losses.lpips import Lpips

_LPIPS_SIDE_PX = 64
"""Pictures that are smaller are enlarged before the perceptual distance is taken."""


class ImageScores:
    """Image figures of a video, averaged over its frames (mean of per-frame dB, as papers do).

    Without `lpips` the perceptual figures are NaN.
    """

    def __init__(self, lpips: Lpips | None = None) -> None:
        self._lpips = lpips
        self._frames: list[dict[str, float]] = []

    def add(
        self,
        image: Shaped[np.ndarray, "H W 3"],
        head_image: Shaped[np.ndarray, "H W 3"],
        head_alpha: Shaped[np.ndarray, "H W"],
        truth: Shaped[np.ndarray, "H W 3"],
        labels: Shaped[np.ndarray, "H W"],
        true_landmarks_px: Float[np.ndarray, "P 3"],
    ) -> None:
        """Measure one frame. A frame whose truth has no landmarks gets no mouth figure."""
        true_head = np.isin(labels, [int(region) for region in HEAD])
        region = image_metrics.dilate(true_head, max(1, image.shape[0] // 64))
        composite = image_metrics.head_over_truth(image, head_image, head_alpha, truth, true_head)
        truth_unit = image_metrics.unit_range(truth)
        scores = {
            "psnr_full": image_metrics.psnr(image, truth),
            "psnr_head_over_truth": image_metrics.psnr(composite, truth_unit),
            "psnr_head": image_metrics.psnr(composite, truth_unit, region),
            "psnr_mouth": float("nan"),
            "ssim_full": image_metrics.ssim(image, truth),
            "ssim_head": image_metrics.ssim(composite, truth_unit, region),
            "lpips_full": self._perceptual(image, truth),
            "lpips_mouth": float("nan"),
        }
        scores["neck_colour_error"], scores["neck_seam"] = neck_figures(image, truth, labels)
        if np.isfinite(true_landmarks_px).all():
            box = mouth_box(true_landmarks_px, image.shape[1], image.shape[0])
            mouths = image_metrics.crop(image, box), image_metrics.crop(truth, box)
            scores["psnr_mouth"] = image_metrics.psnr(*mouths)
            scores["lpips_mouth"] = self._perceptual(*mouths)
        self._frames.append(scores)

    def _perceptual(self, image: Shaped[np.ndarray, "H W 3"], target: Shaped[np.ndarray, "H W 3"]) -> float:
        if self._lpips is None:
            return float("nan")
        device = self._lpips.device
        pair = (torch.from_numpy(_enlarged(image_metrics.unit_range(picture)))[None].to(device) for picture in (image, target))
        with torch.no_grad():
            return float(self._lpips(*pair))

    def means(self) -> dict[str, float]:
        """Mean of every figure over the frames that have it."""
        names = list(self._frames[0]) if self._frames else []
        return {name: _mean(np.array([scores[name] for scores in self._frames])) for name in names}


class Take(NamedTuple):
    """Landmarks and mouth opening of one video; NaN where no face was found."""

    landmarks_px: Float[np.ndarray, "T 478 3"]
    aperture: Float[np.ndarray, "T"]


def sync_figures(
    true: Take,
    driven: Take,
    shuffled: Take | None,
    silent: Take | None,
    lips_in_silence: float | None,
    *,
    resolution: int,
    max_offset: int,
    control_shift: int,
) -> dict[str, float | int | None]:
    """Lip sync and jitter of a driven video against its truth and its controls; None where a control was not run.

    `lips_in_silence`: `movement_ratio` of the lips in the canonical frame.
    """
    distance = lip_sync.landmark_distance(driven.landmarks_px, true.landmarks_px, resolution)
    real = lip_sync.aperture_correlation(true.aperture, driven.aperture)
    control = None if shuffled is None else lip_sync.aperture_correlation(true.aperture, shuffled.aperture)
    offset = lip_sync.offset_frames(true.aperture, driven.aperture, max_offset)
    return {
        "lmd_px512": distance.px512,
        "lmd_iod": distance.iod,
        "aperture_r": real,
        "aperture_r_shuffled": control,
        "aperture_r_gap": None if control is None else real - control,
        "aperture_r_chance": lip_sync.chance_correlation(
            true.aperture, driven.aperture, min(control_shift, len(true.aperture) // 4)
        ),
        "aperture_std_silent_over_speech": None
        if silent is None
        else lip_sync.movement_ratio(silent.aperture, driven.aperture),
        "lip_std_silent_over_speech": lips_in_silence,
        "offset_frames": None if offset is None else offset.frames,
        "offset_subframe": None if offset is None else offset.subframe,
        "offset_r": None if offset is None else offset.correlation,
        "jitter_ratio": jitter.jitter_ratio(driven.landmarks_px, true.landmarks_px),
        "faces_found": float(np.isfinite(driven.aperture).mean()) if len(driven.aperture) else 0.0,
    }


def _enlarged(image: Shaped[np.ndarray, "h w 3"]) -> Shaped[np.ndarray, "H W 3"]:
    factor = _LPIPS_SIDE_PX / min(image.shape[:2])
    return image if factor <= 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
