"""First Gaussians of a head and a torso, lifted from a few frames of the clip.

Head pixels are put onto the surface of the tracked face, continued behind its rim as a dome; torso pixels onto a plane.
Own choice; 3DGS starts from structure-from-motion points, which a head in front of a fixed camera does not give. From the
points on, it is as there.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.geometry.camera import Intrinsics

_DOME_SLOPE = 0.6
_MOUTH_DEPTH_DM = 0.08
# Pixels of several views lie closer together than Gaussians need to be wide apart, so a little less than the spacing covers.
_WIDTH_OVER_SPACING = 0.7
_SMALLEST_SPACING = 3e-4
_BISECTIONS = 18


class View(NamedTuple):
    """One frame to lift from. `inside`: pixels to take; `behind`: pixels that lie a little deeper (the open mouth)."""

    image: Float[np.ndarray, "H W 3"]
    inside: Bool[np.ndarray, "H W"]
    behind: Bool[np.ndarray, "H W"]
    head_to_camera: Float[np.ndarray, "4 4"]


def _surface(mesh: Float[np.ndarray, "P 3"]) -> Callable[[np.ndarray], np.ndarray]:
    """Depth z of the head over canonical (x, y): the face mesh, then a ring of dome points around it."""
    centre = mesh[:, :2].mean(0)
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = ((mesh[:, None, :2] - centre) @ directions.T[None]).reshape(len(mesh), -1)
    rim = reach.max(0)
    rim_z = mesh[reach.argmax(0), 2]
    rings = [mesh]
    for distance in (0.35, 0.8, 2.0, 6.0):
        xy = centre + directions * (rim + distance)[:, None]
        rings.append(np.column_stack([xy, rim_z + _DOME_SLOPE * min(distance, 1.5)]))
    points = np.concatenate(rings)
    from scipy.interpolate import LinearNDInterpolator

    return LinearNDInterpolator(points[:, :2], points[:, 2])


def _rays(camera: Intrinsics, rows: np.ndarray, columns: np.ndarray) -> Float[np.ndarray, "N 3"]:
    return np.stack([(columns + 0.5 - camera.cx) / camera.fx, (rows + 0.5 - camera.cy) / camera.fy, np.ones(len(rows))], axis=1)


def lift_head(
    view: View, mesh: Float[np.ndarray, "P 3"], camera: Intrinsics
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """Positions in the canonical frame (dm) and colours of the head's pixels in one view."""
    rows, columns = np.nonzero(view.inside)
    rays, surface = _rays(camera, rows, columns), _surface(mesh)
    rotation, translation = view.head_to_camera[:3, :3], view.head_to_camera[:3, 3]
    depth = np.full(len(rays), translation[2])
    canonical = np.zeros((len(rays), 3))
    for _ in range(4):
        canonical = (rays * depth[:, None] - translation) @ rotation
        target_z = np.nan_to_num(surface(canonical[:, :2]), nan=float(mesh[:, 2].max()))
        depth = depth + (target_z - canonical[:, 2]) * rotation[2, 2]
    canonical[:, 2] += _MOUTH_DEPTH_DM * view.behind[rows, columns]
    return canonical, view.image[rows, columns]


def initial_head(
    views: list[View], mesh: Float[np.ndarray, "P 3"], camera: Intrinsics, count: int, rng: np.random.Generator
) -> GaussianCloud:
    """About `count` Gaussians over the head, from all views, thinned to even spacing."""
    lifted = [lift_head(view, mesh, camera) for view in views]
    depth_dm = float(np.mean([view.head_to_camera[2, 3] for view in views]))
    points, colours = np.concatenate([p for p, _ in lifted]), np.concatenate([c for _, c in lifted])
    return _from_pixels(points, colours, depth_dm / camera.fx, count, rng)


def initial_torso(
    views: list[View], camera: Intrinsics, depth_dm: float, count: int, rng: np.random.Generator
) -> GaussianCloud:
    """About `count` Gaussians over the body, on a plane at `depth_dm` in the camera's frame."""
    points, colours = [], []
    for view in views:
        rows, columns = np.nonzero(view.inside)
        points.append(_rays(camera, rows, columns) * depth_dm)
        colours.append(view.image[rows, columns])
    return _from_pixels(np.concatenate(points), np.concatenate(colours), depth_dm / camera.fx, count, rng)


def body_fill(
    image: Float[np.ndarray, "H W 3"], body: Bool[np.ndarray, "H W"], head: Bool[np.ndarray, "H W"], reach_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Continue the body upwards under the head by `reach_px`, so that no gap opens when the head moves.

    Returns:
        The image with the hidden body pixels painted from the nearest visible ones, and the extended mask.
    """
    rows, columns = np.nonzero(body)
    if not len(rows):
        return image, body
    hidden_rows, hidden_columns = np.nonzero(head)
    from scipy.spatial import KDTree

    tree = KDTree(np.column_stack([rows, columns]))
    found = tree.query(np.column_stack([hidden_rows, hidden_columns]), distance_upper_bound=float(reach_px))
    distance, nearest = np.asarray(found[0]), np.asarray(found[1])
    near = np.isfinite(distance)
    filled, extended = image.copy(), body.copy()
    source = nearest[near]
    filled[hidden_rows[near], hidden_columns[near]] = image[rows[source], columns[source]]
    extended[hidden_rows[near], hidden_columns[near]] = True
    return filled, extended


def from_points(
    points: Float[np.ndarray, "N 3"],
    colors: Float[np.ndarray, "N 3"],
    count: int | None = None,
    *,
    rng: np.random.Generator | None = None,
    width_over_spacing: float = 1.0,
    spacing_limits: tuple[float, float] = (_SMALLEST_SPACING, math.inf),
) -> GaussianCloud:
    """Round Gaussians at points, each as wide as its three nearest neighbours are away on average.

    Args:
        points: centres.
        colors: RGB in 0..1.
        count: thin evenly to about so many; None: one at each point.
        rng: chooses which of several close points stays; fixed where None.
        width_over_spacing: standard deviation over the mean distance.
        spacing_limits: bounds of the mean distance, in the points' unit: coincident points have none, outliers a large one.

    Raises:
        ValueError: fewer than four points, or a count that is not positive.

    Source: 3DGS.
    """
    if count is not None and count < 1:
        raise ValueError(f"count must be positive, got {count}")
    if count is not None and count < len(points):
        keep = _evenly_spaced(points, count, rng or np.random.default_rng(0))
        points, colors = points[keep], colors[keep]
    if len(points) < 4:
        raise ValueError(f"{len(points)} points to start Gaussians from: at least 4 are needed")
    from scipy.spatial import KDTree

    distances, _ = KDTree(points).query(points, k=4)
    spacing = np.clip(np.asarray(distances)[:, 1:].mean(axis=1), *spacing_limits)
    return GaussianCloud.from_points(
        torch.tensor(points, dtype=torch.float32),
        torch.tensor(colors, dtype=torch.float32),
        torch.tensor(spacing * width_over_spacing, dtype=torch.float32),
    )


def _from_pixels(
    points: np.ndarray, colors: np.ndarray, pixel_dm: float, count: int, rng: np.random.Generator
) -> GaussianCloud:
    limits = (pixel_dm * 0.3, pixel_dm * 6)
    return from_points(points, colors, count, rng=rng, width_over_spacing=_WIDTH_OVER_SPACING, spacing_limits=limits)


def _evenly_spaced(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of about `count` points: one of each cell of a grid whose cell size is found by bisection."""
    extent = max(float(np.ptp(points, axis=0).max()), 1e-9)
    low, high = extent * 1e-6, extent
    order = rng.permutation(len(points))
    keep = order
    for _ in range(_BISECTIONS):
        cell = math.sqrt(low * high)
        _, first = np.unique(np.floor(points[order] / cell).astype(np.int64), axis=0, return_index=True)
        keep = order[np.sort(first)]
        low, high = (cell, high) if len(keep) > count else (low, cell)
    return keep
