"""Gaussian clouds and the one door to every renderer of them (`rasterize`)."""
