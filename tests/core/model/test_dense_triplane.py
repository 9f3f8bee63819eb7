import pytest
import torch

from gensync_core.model.dense_triplane import DenseTriplane
from gensync_core.model.hash_triplane import encode_with_torch


def _planes(seed: int = 0) -> DenseTriplane:
    torch.manual_seed(seed)
    planes = DenseTriplane(levels=3, features_per_level=2, num_parameters=1200).double()
    torch.nn.init.normal_(planes.table)
    return planes


def test_as_large_as_allowed_with_a_side_that_doubles():
    planes = DenseTriplane(levels=4, features_per_level=4, num_parameters=222108)
    assert planes.resolutions == [116, 58, 29, 14]
    assert planes.table.shape == (3 * sum((side + 1) ** 2 for side in planes.resolutions), 4)
    assert 0.97 * 222108 < planes.table.numel() <= 222108
    assert planes.out_size == 48


def test_both_ways_to_look_up_agree_inside_and_outside_of_the_box():
    planes = _planes()
    points = (torch.rand(200, 3, dtype=torch.float64) * 2.4 - 1.2).requires_grad_()
    upstream = torch.randn(200, planes.out_size, dtype=torch.float64)
    by_image = planes(points)
    by_index = encode_with_torch(points, planes.table, planes._units)
    torch.testing.assert_close(by_image, by_index)
    wanted = points, planes.table
    for one, other in zip(
        torch.autograd.grad(by_image, wanted, upstream), torch.autograd.grad(by_index, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_corner_is_a_row_and_between_two_lies_their_mean():
    planes = DenseTriplane(levels=1, features_per_level=1, num_parameters=12)
    assert planes.resolutions == [1]
    with torch.no_grad():
        planes.table[:, 0] = torch.arange(12.0)
    corner, between = planes(torch.tensor([[1.0, -1.0, -1.0], [0.0, -1.0, -1.0]])).tolist()
    # Rows of a plane are (-1, -1), (1, -1), (-1, 1), (1, 1); planes are xy, yz and zx, whose second axis is x.
    assert corner == [1.0, 4.0, 10.0]
    assert between == [0.5, 4.0, 9.0]


def test_no_two_places_share_a_row():
    planes, side = _planes(), 7
    finest = planes.resolutions[0]
    at = torch.linspace(-1, 1, finest + 1, dtype=torch.float64)[::side]
    grid = torch.cartesian_prod(at, at, torch.tensor([0.0], dtype=torch.float64))
    touched = []
    for point in grid:
        planes.table.grad = None
        planes(point[None])[:, :2].sum().backward()
        assert planes.table.grad is not None
        touched.append(int(planes.table.grad.abs().sum(1).argmax()))
    assert len(set(touched)) == len(grid)


def test_gradients_are_those_of_finite_differences():
    planes = _planes()
    points = (torch.rand(4, 3, dtype=torch.float64) * 1.8 - 0.9).requires_grad_()
    assert torch.autograd.gradcheck(planes, points)


def test_positions_and_constants_stand_beside_the_features():
    planes = _planes()
    points, constants = torch.rand(5, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    row = planes.with_positions(points, constants, 32)
    torch.testing.assert_close(row[:, :22], torch.cat([planes(points), points, constants[:, None]], dim=1))
    assert row[:, 22:].abs().max() == 0


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        DenseTriplane(0, 4, 1000)
    with pytest.raises(ValueError, match="3 points a plane are too few for 1 levels"):
        DenseTriplane(1, 1, 9)
