"""Weights of all loss terms, as `params.yaml` gives them."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class LossParams:
    """Weights of the terms of MODEL; 0 switches a term off.

    Attributes:
        ssim: share of (1 - SSIM) against L1 in the photometric term.
        mouth: extra L1 weight inside the mouth box.
        alpha: head coverage against the parsing mask.
        motion: landmarks moved by the field against the tracked ones, in the canonical box.
        size: |deformation|.
        temporal: |deformation_t - deformation_(t-1)| on adjacent pairs.
        stray_attention: audio attention away from the mouth.
        confusion: speaker classifier behind gradient reversal.
        silence: lips against closed ones where silence is heard, in the unit of `motion`.
        swap: same audio, another identity, same mouth motion.
        perceptual: LPIPS of a patch, in the last fifth of the steps on heads.
    """

    ssim: float
    mouth: float
    alpha: float
    motion: float
    size: float
    temporal: float
    stray_attention: float
    confusion: float
    silence: float
    swap: float
    perceptual: float

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must not be negative, got {getattr(self, field.name)}")
        if self.ssim > 1:
            raise ValueError(f"ssim is a share and must not exceed 1, got {self.ssim}")
