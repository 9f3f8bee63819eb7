"""How fast is the CPU rasterizer, and how much faster than the plain torch reference in the same run?

    python benchmarks/rasterize.py [--json FILE] [--threads 1 2] [--full]

Scenes look like a head and shoulders; about 30 Gaussians reach each pixel. Times are the fastest of several runs,
forward and forward + backward, in ms. The ratio divides the reference (1 thread) by the cpu backend (1 thread).
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gensync_core.gaussians.backends.reference import project
from gensync_core.gaussians.rasterize import Backend, rasterize

SCENES = ((5_000, 128), (10_000, 256))
FULL_SCENES = (*SCENES, (20_000, 256), (50_000, 512))
GAUSSIANS_PER_PIXEL = 30.0
REPEATS = 15


def head_scene(count: int, size_px: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """An ellipsoid head over a torso, flat Gaussians on their surfaces, scaled until enough of them reach each pixel."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    num_torso = count * 15 // 100
    directions = torch.nn.functional.normalize(normal(count, 3), dim=1)
    semi_axes, centre = torch.tensor([0.72, 1.0, 0.85]).repeat(count, 1), torch.zeros(count, 3)
    semi_axes[:num_torso], centre[:num_torso] = torch.tensor([1.5, 0.6, 0.5]), torch.tensor([0.0, 1.55, 0.1])
    scene = {
        "means": directions * semi_axes * (1 + 0.02 * normal(count, 1)) + centre,
        "quats": normal(count, 4),
        "scales": torch.exp(torch.stack([0.45 * normal(count), 0.45 * normal(count), 0.3 * normal(count) - 1], 1)),
        "opacities": torch.sigmoid(1.5 * normal(count)),
        "colors": (0.5 + 0.25 * normal(count, 3)).clamp(0, 1),
    }
    viewmat = torch.eye(4)
    viewmat[:3, 3] = torch.tensor([0.0, -0.25, 4.2])
    k = torch.tensor([[1.35 * size_px, 0, size_px / 2], [0, 1.35 * size_px, size_px / 2], [0, 0, 1]])
    low, high, base = math.log(1e-4), 0.0, scene["scales"]
    for _ in range(25):
        middle = (low + high) / 2
        scene["scales"] = base * math.exp(middle)
        means2d, covariances, _ = project(scene["means"], scene["quats"], scene["scales"], viewmat, k, size_px, size_px)
        inside = ((means2d > 0) & (means2d < size_px)).all(1)
        areas = (
            2 * math.pi * torch.log(255 * scene["opacities"]).clamp_min(0) * torch.linalg.det(covariances).clamp_min(0).sqrt()
        )
        per_pixel = (areas * inside).sum().item() / size_px**2
        low, high = (low, middle) if per_pixel > GAUSSIANS_PER_PIXEL else (middle, high)
    return scene, viewmat[None], k[None]


def fastest_ms(run: Callable[[], object], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def measure(count: int, size_px: int, backend: Backend, repeats: int) -> dict[str, float]:
    scene, viewmats, Ks = head_scene(count, size_px)
    leaves = {name: tensor.requires_grad_() for name, tensor in scene.items()}

    def forward() -> Tensor:
        return rasterize(**leaves, viewmats=viewmats, Ks=Ks, width=size_px, height=size_px, backend=backend).image

    upstream = torch.randn(1, size_px, size_px, 3, generator=torch.Generator().manual_seed(1))
    return {
        "forward_ms": fastest_ms(forward, repeats),
        "forward_backward_ms": fastest_ms(lambda: torch.autograd.grad(forward(), list(leaves.values()), upstream), repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--full", action="store_true", help="also 20k at 256 px and 50k at 512 px")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'Gaussians':>9} {'px':>4} {'backend':>9} {'threads':>7} {'forward ms':>11} {'fwd+bwd ms':>11} {'ratio':>6}")
    for count, size_px in FULL_SCENES if arguments.full else SCENES:
        reference = measure(count, size_px, Backend("reference", "cpu"), repeats=2)
        runs = [("reference", 1, reference)]
        runs += [
            ("cpu", threads, measure(count, size_px, Backend("cpu", "cpu", threads), REPEATS)) for threads in arguments.threads
        ]
        for name, threads, times in runs:
            ratio = reference["forward_backward_ms"] / times["forward_backward_ms"]
            rows.append({"gaussians": count, "size_px": size_px, "backend": name, "threads": threads, **times, "ratio": ratio})
            print(
                f"{count:>9} {size_px:>4} {name:>9} {threads:>7} {times['forward_ms']:>11.2f} "
                f"{times['forward_backward_ms']:>11.2f} {ratio:>6.1f}"
            )
    if arguments.json:
        content = {"torch": torch.__version__, "machine": platform.machine(), "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
