"""How fast is the CPU rasterizer: against plain torch in the same run, and against what this machine can do at most?

    python benchmarks/rasterize.py [--json FILE] [--threads 1 2] [--quick]

Scenes look like a head and shoulders; about 30 Gaussians reach each pixel. A row says

- times: the fastest of several runs, forward and forward + backward, in ms;
- ratio: forward + backward of the torch reference (tiles, 1 thread) over that of this row;
- Gev/s: alphas of one pixel and one splat that the forward pass computes in a second, in 1e9 (all threads together);
- limit: Gev/s as a share of the machine's ceiling times the threads. The ceiling is measured in the same run: one thread
  that computes exp2 and ten fused multiply-adds per element over an array that stays in the L1 cache;
- MiB: how much the memory of a fresh process grows at most during one forward + backward.
"""

import argparse
import ctypes
import gc
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from process_memory import peak_bytes
from torch import Tensor

from gensync_core.gaussians.backends.cpu import count_alpha_evaluations
from gensync_core.gaussians.backends.reference import project
from gensync_core.gaussians.rasterize import Backend, rasterize

SCENES = ((5_000, 128), (10_000, 256), (20_000, 256), (50_000, 512))
NUM_QUICK = 2
GAUSSIANS_PER_PIXEL = 30.0
REPEATS = 15
REFERENCE_REPEATS = 2
# From here on the autograd graph of the reference takes gigabytes.
LARGE_PX = 512
L1_FLOATS, CEILING_ROUNDS, CEILING_REPEATS = 1024, 2000, 200


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
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def passes(count: int, size_px: int, backend: Backend) -> tuple[Callable[[], Tensor], Callable[[], object]]:
    """The forward pass, and the forward and backward pass, of a head scene."""
    scene, viewmats, Ks = head_scene(count, size_px)
    leaves: dict[str, Any] = {name: tensor.requires_grad_() for name, tensor in scene.items()}
    upstream = torch.randn(1, size_px, size_px, 3, generator=torch.Generator().manual_seed(1))

    def forward() -> Tensor:
        return rasterize(**leaves, viewmats=viewmats, Ks=Ks, width=size_px, height=size_px, backend=backend).image

    return forward, lambda: torch.autograd.grad(forward(), list(leaves.values()), upstream)


def measure(count: int, size_px: int, backend: Backend) -> dict[str, float]:
    forward, forward_backward = passes(count, size_px, backend)
    repeats = REFERENCE_REPEATS
    if backend.name == "cpu":
        repeats = REPEATS
        forward_backward()
    return {"forward_ms": fastest_ms(forward, repeats), "forward_backward_ms": fastest_ms(forward_backward, repeats)}


@numba.njit(fastmath={"contract", "nsz"}, error_model="numpy")  # any more and the rounding is optimised away
def evaluate_alphas(powers, alphas, rounds):
    """Per element exp2 as the kernels compute it, and ten multiply-adds that depend on it and on each other."""
    magic, half = np.float32(3 << 22), np.float32(0.5)
    for _ in range(rounds):
        for i in range(powers.size):
            x = powers[i]
            rounded = x + magic
            f = x - (rounded - magic)
            root = np.float32(0.0013276472) * f + np.float32(0.0096755413)
            root = root * f + np.float32(0.0555071327)
            root = root * f + np.float32(0.2402211972)
            root = root * f + np.float32(0.6931469671)
            root = root * f + np.float32(1.0000000717)
            y = np.int32(np.float32(root).view(np.int32) + (np.float32(rounded).view(np.int32) << np.int32(23))).view(
                np.float32
            )
            a, b, c, d, e = x * half + y, y * half + x, y * x + half, x * x + y, y * y + x
            a, d = a * b + c, d * e + c
            b, c = b * e + a, c * d + a
            alphas[i] = a * b + c + d


def ceiling() -> float:
    """Alpha evaluations per second of one thread."""
    powers = np.linspace(-8, 0, L1_FLOATS, dtype=np.float32)
    alphas = np.empty_like(powers)
    evaluate_alphas(powers, alphas, 1)
    return (
        L1_FLOATS
        * CEILING_ROUNDS
        / (1e-3 * fastest_ms(lambda: evaluate_alphas(powers, alphas, CEILING_ROUNDS), CEILING_REPEATS))
    )


def print_memory_growth(count: int, size_px: int, backend: Backend) -> None:
    """In a process of its own. Kernels are loaded before it counts; on Linux what is past and freed is forgotten."""
    passes(64, 16, backend)[1]()
    run = passes(count, size_px, backend)[1]
    gc.collect()
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        forget.write_text("5")
    before = peak_bytes()
    run()
    print((peak_bytes() - before) / (1 << 20))


def memory_mib(count: int, size_px: int, backend: Backend) -> float:
    command = [sys.executable, __file__, "--memory", str(count), str(size_px), backend.name, str(backend.threads)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure_scene(count: int, size_px: int, threads: list[int], limit: float) -> list[dict[str, float | str | None]]:
    """One row for the reference, one for each number of threads."""
    scene, viewmats, Ks = head_scene(count, size_px)
    splats = {name: scene[name] for name in ("means", "quats", "scales", "opacities")}
    evaluations = count_alpha_evaluations(**splats, viewmat=viewmats[0], K=Ks[0], width=size_px, height=size_px)
    rows = []
    for backend in (Backend("reference", "cpu"), *(Backend("cpu", "cpu", number) for number in threads)):
        is_cpu = backend.name == "cpu"
        times = measure(count, size_px, backend)
        rate = evaluations / (1e-3 * times["forward_ms"]) if is_cpu else None
        rows.append({
            "gaussians": count, "size_px": size_px, "backend": backend.name, "threads": backend.threads, **times,
            "ratio": (rows[0] if rows else times)["forward_backward_ms"] / times["forward_backward_ms"],
            "evaluations": evaluations if is_cpu else None, "evaluations_per_s": rate,
            "share_of_ceiling": rate / (limit * backend.threads) if rate is not None else None,
            "peak_memory_mib": memory_mib(count, size_px, backend) if is_cpu or size_px < LARGE_PX else None,
        })  # fmt: skip
    return rows


COLUMNS = (
    ("gaussians", "Gaussians", "d"), ("size_px", "px", "d"), ("backend", "backend", "s"), ("threads", "threads", "d"),
    ("forward_ms", "forward ms", ".2f"), ("forward_backward_ms", "fwd+bwd ms", ".2f"), ("ratio", "ratio", ".1f"),
    ("evaluations_per_s", "Gev/s", ".2f"), ("share_of_ceiling", "limit", ".0%"), ("peak_memory_mib", "MiB", ".1f"),
)  # fmt: skip


def as_line(row: dict[str, float | str | None]) -> str:
    cells = []
    for name, _, form in COLUMNS:
        value = row[name]
        if name == "evaluations_per_s" and isinstance(value, float):
            value /= 1e9
        cells.append(f"{'-' if value is None else format(value, form):>10}")
    return " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write all figures here")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="only the two smaller scenes")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        count, size_px, name, threads = arguments.memory
        print_memory_growth(int(count), int(size_px), Backend(name, "cpu", int(threads)))
        return
    limit = ceiling()
    print(f"ceiling: {limit / 1e9:.2f} Gev/s in one thread\n" + " ".join(f"{title:>10}" for _, title, _ in COLUMNS))
    rows = []
    for count, size_px in SCENES[: NUM_QUICK if arguments.quick else None]:
        for row in measure_scene(count, size_px, arguments.threads, limit):
            rows.append(row)
            print(as_line(row), flush=True)
    if arguments.json:
        content = {"torch": torch.__version__, "machine": platform.machine(), "ceiling_per_s": limit, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
