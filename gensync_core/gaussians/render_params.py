"""How is rendered, as `params.yaml` says."""

from dataclasses import dataclass

MAX_DEGREE = 2
"""Highest degree of the spherical harmonics that the renderers know."""

BACKENDS = ("auto", "cpu", "gsplat", "reference")


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderParams:
    """Which renderer runs, and how wide.

    Attributes:
        backend: `auto` (gsplat where there is a CUDA device, else cpu), `cpu`, `gsplat` or `reference` (slow oracle).
        threads: threads of the CPU kernels, at least 1; they change speed, never a result.
    """

    backend: str
    threads: int

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend is {self.backend!r}, expected one of {', '.join(BACKENDS)}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
