import math

import pytest
import torch

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.rasterize import Backend
from gensync_core.geometry.camera import Intrinsics
from gensync_core.rendering.compositor import render_layer, render_layer_and_screen

CAMERA = Intrinsics(fx=24.0, fy=24.0, cx=12.0, cy=12.0, width=24, height=24)
REFERENCE = Backend("reference", "cpu")


def pose(yaw: float) -> torch.Tensor:
    """The cloud turned about its own y axis, 4 in front of the camera."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return torch.tensor([[cos, 0, sin, 0], [0, 1, 0, 0], [-sin, 0, cos, 4.0], [0, 0, 0, 1]])


def one_gaussian(degree: int) -> GaussianCloud:
    cloud = GaussianCloud.from_points(torch.zeros(1, 3), torch.full((1, 3), 0.5), scale=0.5, opacity=0.99)
    cloud = cloud.with_sh_degree(degree)
    if degree:
        cloud.sh[:, 3, 0] = 0.6  # red along x
    return cloud


@pytest.mark.parametrize("degree", [1, 2])
def test_colour_of_a_higher_degree_follows_the_direction_of_view(degree: int):
    left, front, right = (render_layer(one_gaussian(degree), pose(yaw), CAMERA, REFERENCE).image[12, 12] for yaw in (-1, 0, 1))
    assert abs(front[0] - front[1]) < 0.02
    assert abs((left[0] - front[0]) + (right[0] - front[0])) < 0.02
    assert abs(left[0] - right[0]) > 0.3
    torch.testing.assert_close(left[1:], right[1:])


def test_zero_coefficients_of_a_higher_degree_change_nothing():
    cloud = one_gaussian(0)
    plain = render_layer(cloud, pose(0.3), CAMERA, REFERENCE)
    same = render_layer(cloud.with_sh_degree(2), pose(0.3), CAMERA, REFERENCE)
    torch.testing.assert_close(plain.image, same.image)


def test_screen_tells_where_the_loss_wants_to_move_a_gaussian():
    cloud = one_gaussian(0).requires_grad()
    layer, screen = render_layer_and_screen(cloud, pose(0.0), CAMERA, REFERENCE)
    (layer.image[:, 18:].sum() - layer.image[:, :6].sum()).backward()
    assert screen.gradient is not None
    assert screen.gradient.shape == (1, 1, 2)
    assert screen.gradient[0, 0, 0] > 0
    assert abs(screen.gradient[0, 0, 1]) < 1e-4
