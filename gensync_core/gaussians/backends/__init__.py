"""Renderers behind `gaussians.rasterize`: numba on a CPU, plain torch as the oracle, gsplat on CUDA."""
