"""A cloud of 3-D Gaussians as raw tensors, the form in which they are trained and stored.

Shapes: N Gaussians, K spherical-harmonics coefficients.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.gaussians.spherical_harmonics import SH_C0


@dataclass(frozen=True, slots=True)
class GaussianCloud:
    """Gaussians before their activations; the properties give what a renderer takes.

    Attributes:
        means: centres [N, 3] in the cloud's own frame (dm).
        quats: rotations [N, 4], wxyz, of any length.
        log_scales: ln of the standard deviations [N, 3].
        logit_opacities: [N]; opacity = sigmoid.
        sh: colour [N, K, 3]: spherical harmonics of degree sqrt(K) - 1, the constant one first.
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    log_scales: Float[Tensor, "N 3"]
    logit_opacities: Float[Tensor, "N"]
    sh: Float[Tensor, "N K 3"]

    def __post_init__(self) -> None:
        count = len(self.means)
        expected = {"means": (count, 3), "quats": (count, 4), "log_scales": (count, 3), "logit_opacities": (count,)}
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, expected {shape}")
        if self.sh.ndim != 3 or self.sh.shape[0] != count or self.sh.shape[1] < 1 or self.sh.shape[2] != 3:
            raise ValueError(f"sh has shape {tuple(self.sh.shape)}, expected ({count}, K, 3)")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Float[Tensor, "N 3"]:
        """Standard deviations (dm)."""
        return torch.exp(self.log_scales)

    @property
    def opacities(self) -> Float[Tensor, "N"]:
        """Opacities in 0..1."""
        return torch.sigmoid(self.logit_opacities)

    @property
    def colors(self) -> Float[Tensor, "N 3"]:
        """RGB in 0..1 of the constant coefficient; no gradient where it is clamped."""
        return torch.clamp(0.5 + SH_C0 * self.sh[:, 0], 0.0, 1.0)

    @property
    def sh_degree(self) -> int:
        """Degree of the harmonics; at 0 colour is the same from everywhere.

        Raises:
            ValueError: the number of coefficients is not that of any degree.
        """
        count = self.sh.shape[1]
        degree = math.isqrt(count) - 1
        if (degree + 1) ** 2 != count:
            raise ValueError(f"{count} colour coefficients belong to no degree: expected 1, 4, 9, ...")
        return degree

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.means.device

    @classmethod
    def from_points(
        cls,
        positions: Float[Tensor, "N 3"],
        colors: Float[Tensor, "N 3"],
        scale: float | Float[Tensor, "N"],
        opacity: float = 0.8,
    ) -> "GaussianCloud":
        """Round Gaussians at given places.

        Args:
            positions: centres.
            colors: RGB in 0..1.
            scale: standard deviation, one for all or one each.
            opacity: of all of them, in (0, 1).

        Raises:
            ValueError: a scale is not positive or the opacity is not inside (0, 1).
        """
        count = len(positions)
        scales = torch.as_tensor(scale, dtype=positions.dtype, device=positions.device).expand(count)
        if not (scales > 0).all():
            raise ValueError("scales must be positive")
        if not 0 < opacity < 1:
            raise ValueError(f"opacity must lie inside (0, 1), got {opacity}")
        return cls(
            means=positions.clone(),
            quats=positions.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
            log_scales=scales.log()[:, None].repeat(1, 3),
            logit_opacities=torch.logit(positions.new_full((count,), opacity)),
            sh=((colors - 0.5) / SH_C0)[:, None],
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], prefix: str = "") -> "GaussianCloud":
        """The inverse of `to_arrays`; other keys are left alone.

        Raises:
            KeyError: an array is missing.
            ValueError: the shapes do not fit together.
        """
        names = {field.name: f"{prefix}{field.name}" for field in fields(cls)}
        missing = [key for key in names.values() if key not in arrays]
        if missing:
            raise KeyError(f"no array {', '.join(missing)}")
        # Copied: arrays out of a file may be read-only, and these tensors are trained in place.
        return cls(**{name: torch.tensor(arrays[key], dtype=torch.float32) for name, key in names.items()})

    @classmethod
    def cat(cls, clouds: Sequence["GaussianCloud"]) -> "GaussianCloud":
        """All Gaussians of some clouds, in order.

        Raises:
            ValueError: no cloud, or different numbers of colour coefficients.
        """
        if not clouds:
            raise ValueError("no cloud to join")
        if len({cloud.sh.shape[1] for cloud in clouds}) > 1:
            raise ValueError("clouds with different numbers of colour coefficients cannot be joined")
        return cls(*(torch.cat([getattr(cloud, field.name) for cloud in clouds]) for field in fields(cls)))

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of each attribute; the tensors themselves, not copies."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)

    def with_sh_degree(self, degree: int) -> "GaussianCloud":
        """The same Gaussians with harmonics up to `degree`: new coefficients are 0, those beyond are dropped.

        Raises:
            ValueError: the degree is negative.
        """
        if degree < 0:
            raise ValueError(f"sh_degree must not be negative, got {degree}")
        count = (degree + 1) ** 2
        added = self.sh.new_zeros(len(self), max(count - self.sh.shape[1], 0), 3)
        return replace(self, sh=torch.cat([self.sh[:, :count], added], dim=1))

    def to_arrays(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Float32 arrays for `artefacts.write_tensors`, each name behind `prefix`."""
        return {f"{prefix}{name}": tensor.detach().cpu().float().numpy() for name, tensor in self.named()}

    def to(self, device: str | torch.device) -> "GaussianCloud":
        """The cloud on a device; its tensors are shared where they are there already."""
        return GaussianCloud(**{name: tensor.to(device) for name, tensor in self.named()})

    def detach(self) -> "GaussianCloud":
        """The same values without gradients."""
        return GaussianCloud(**{name: tensor.detach() for name, tensor in self.named()})

    def requires_grad(self, flag: bool = True) -> "GaussianCloud":
        """A copy whose tensors are leaves that collect gradients (or do not)."""
        return GaussianCloud(**{name: tensor.detach().clone().requires_grad_(flag) for name, tensor in self.named()})
