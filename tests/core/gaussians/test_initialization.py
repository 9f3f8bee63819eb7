import numpy as np
import pytest

from gensync_core.gaussians.initialization import View, from_points, initial_head
from gensync_core.geometry.camera import Intrinsics


def grid(side: int, spacing: float) -> np.ndarray:
    axis = np.arange(side) * spacing
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def test_a_gaussian_at_each_point_with_its_colour():
    points, colors = grid(3, 0.1), np.random.default_rng(0).random((27, 3))
    cloud = from_points(points, colors)
    np.testing.assert_allclose(cloud.means, points, rtol=1e-6)
    np.testing.assert_allclose(cloud.colors, colors, atol=1e-6)
    np.testing.assert_allclose(cloud.opacities, 0.8, rtol=1e-6)
    np.testing.assert_array_equal(cloud.quats, np.tile([1.0, 0, 0, 0], (27, 1)))


def test_scale_is_the_mean_distance_of_the_three_nearest_neighbours():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [10, 0, 0]], dtype=float)
    scales = from_points(points, np.full((5, 3), 0.5)).scales
    np.testing.assert_allclose(scales[0], [2, 2, 2], rtol=1e-6)
    np.testing.assert_allclose(scales[4], np.full(3, (9 + 10 + np.sqrt(104)) / 3), rtol=1e-6)
    wide = from_points(points, np.full((5, 3), 0.5), width_over_spacing=0.7, spacing_limits=(2.5, 5.0)).scales
    np.testing.assert_allclose(wide[[0, 4], 0], [0.7 * 2.5, 0.7 * 5.0], rtol=1e-6)


def test_coincident_points_get_a_small_scale_rather_than_none():
    cloud = from_points(np.zeros((6, 3)), np.full((6, 3), 0.5))
    assert (cloud.scales > 0).all()
    assert (cloud.scales < 1e-3).all()


def test_thinning_keeps_about_count_of_the_points_evenly():
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.random((4000, 3)), 0.5 + 0.05 * rng.random((4000, 3))])  # half of them in one corner
    colors = rng.random((8000, 3))
    cloud = from_points(points, colors, 500, rng=np.random.default_rng(2))
    assert abs(len(cloud) - 500) <= 10
    kept = cloud.means.numpy()
    crowded = ((kept > 0.5) & (kept < 0.55)).all(axis=1).sum()
    assert crowded < 20
    index = np.abs(points[:, None].astype(np.float32) - kept[None, :20]).sum(-1).argmin(0)
    np.testing.assert_allclose(cloud.colors[:20], colors[index], atol=1e-6)


def test_thinning_depends_on_the_generator_alone():
    points, colors = np.random.default_rng(0).random((300, 3)), np.full((300, 3), 0.5)
    first, again, other = (from_points(points, colors, 50, rng=np.random.default_rng(seed)).means for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not (first == other).all()


def test_fewer_points_than_asked_for_are_all_kept():
    assert len(from_points(grid(2, 0.1), np.full((8, 3), 0.5), 100)) == 8


def test_points_that_cannot_start_a_cloud_are_refused():
    with pytest.raises(ValueError, match="3 points"):
        from_points(np.zeros((3, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="count"):
        from_points(grid(2, 0.1), np.zeros((8, 3)), 0)


def test_a_head_starts_on_the_pixels_that_show_it():
    camera = Intrinsics(fx=60.0, fy=60.0, cx=24.0, cy=24.0, width=48, height=48)
    axis = np.linspace(-0.8, 0.8, 7)
    mesh = np.array([[x, y, 0.3 * (x * x + y * y)] for x in axis for y in axis])
    pose = np.eye(4)
    pose[2, 3] = 5.0
    rows, columns = np.mgrid[:48, :48]
    image = np.stack([rows / 48, columns / 48, np.full((48, 48), 0.2)], axis=-1)
    inside = (rows - 24) ** 2 + (columns - 24) ** 2 < 8**2
    view = View(image, inside, np.zeros_like(inside), pose)
    cloud = initial_head([view], mesh, camera, 100, np.random.default_rng(0))
    assert 80 <= len(cloud) <= 110
    seen = cloud.means.numpy() + pose[:3, 3]
    pixels = seen[:, :2] / seen[:, 2:] * 60 + 24
    assert (np.linalg.norm(pixels - 24.5, axis=1) < 8.5).all()
    np.testing.assert_allclose(cloud.colors[:, :2], (pixels[:, ::-1] - 0.5) / 48, atol=1e-3)
    pixel_dm = 5.0 / 60
    assert ((cloud.scales > 0.2 * pixel_dm) & (cloud.scales < 4.2 * pixel_dm)).all()
