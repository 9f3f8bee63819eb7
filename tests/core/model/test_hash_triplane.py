import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensync_core.gaussians.backends.cpu_runtime import set_default_threads
from gensync_core.model.hash_triplane import HashTriplane, encode_with_torch


def triplane(*sizes: int, seed: int = 0) -> HashTriplane:
    module = HashTriplane(*sizes)
    with torch.no_grad():
        module.table.normal_(generator=torch.Generator().manual_seed(seed))
    return module


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    levels=st.integers(1, 6),
    finest=st.integers(4, 90),
    log2_table=st.integers(4, 13),
    features=st.integers(1, 4),
    count=st.integers(0, 300),
    seed=st.integers(0, 1000),
)
def test_kernels_equal_the_torch_oracle(levels, finest, log2_table, features, count, seed):
    module = triplane(levels, 4, finest, log2_table, features, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    points = (torch.rand(count, 3, generator=generator) * 2.4 - 1.2).requires_grad_()
    upstream = torch.randn(count, module.out_size, generator=generator)
    output = module(points)
    output.backward(upstream)
    exact_points = points.detach().double().requires_grad_()
    exact_table = module.table.detach().double().requires_grad_()
    expected = encode_with_torch(exact_points, exact_table, module._units)
    expected.backward(upstream.double())
    assert output.shape == (count, module.out_size)
    torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-3)
    assert module.table.grad is not None
    torch.testing.assert_close(module.table.grad.double(), exact_table.grad, rtol=1e-3, atol=1e-3)
    assert points.grad is not None
    assert exact_points.grad is not None
    # A point within rounding of a cell's border may fall on its other side, where the slope differs.
    error = (points.grad.double() - exact_points.grad).abs().flatten() / finest
    if count:
        assert torch.quantile(error, 0.98) < 1e-3


def test_corners_of_a_grid_give_the_stored_values():
    module = triplane(1, 4, 4, 12, 1)
    grid = module.table.detach().reshape(3, 5, 5)  # plane, vertical, horizontal
    corner = torch.tensor([[-1.0, 1.0, 0.5]])
    column = {-1.0: 0, 1.0: 4, 0.5: 3}
    x, y, z = (column[value] for value in corner[0].tolist())
    expected = [grid[0, y, x], grid[1, z, y], grid[2, x, z]]
    np.testing.assert_allclose(module(corner)[0].detach(), [value.item() for value in expected], rtol=1e-6)


def test_points_outside_are_limited_to_the_box_and_get_no_gradient():
    module = triplane(4, 4, 32, 10, 2)
    points = torch.tensor([[3.0, 0.2, -7.0], [0.1, -1.5, 0.3]], requires_grad=True)
    output = module(points)
    torch.testing.assert_close(output, module(points.detach().clamp(-1, 1)))
    output.sum().backward()
    assert points.grad is not None
    assert points.grad[0, 0] == points.grad[0, 2] == points.grad[1, 1] == 0
    assert points.grad[0, 1] != 0


def test_small_levels_are_stored_whole_and_large_ones_hashed():
    module = HashTriplane(3, 4, 64, 8, 2)
    assert module._units.resolutions[:3].tolist() == [4, 16, 64]
    assert module._units.masks[:3].tolist() == [0, 255, 255]
    assert module.table.shape == (3 * (25 + 256 + 256), 2)
    assert module.out_size == 18


def test_same_bits_for_any_number_of_threads():
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    results = []
    for threads in (1, 2, 3):
        set_default_threads(threads)
        module, leaf = triplane(5, 4, 64, 8, 2), points.clone().requires_grad_()
        output = module(leaf)
        (output**2).sum().backward()
        results.append((output.detach(), module.table.grad, leaf.grad))
    set_default_threads(1)
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


def test_points_that_need_no_gradient_still_train_the_table():
    module = triplane(3, 4, 16, 8, 2)
    module(torch.rand(10, 3)).sum().backward()
    assert module.table.grad is not None
    assert module.table.grad.sum().item() == pytest.approx(10 * module.out_size, rel=1e-4)


def test_positions_follow_the_features():
    module, points = triplane(3, 4, 16, 8, 2), torch.rand(700, 3, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    upstream = torch.randn(700, 24, generator=torch.Generator().manual_seed(1))
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
        module, leaf, g = module.to(dtype), points.to(dtype).requires_grad_(), upstream.to(dtype)
        wide = module.with_positions(leaf, torch.full((700,), 0.5, dtype=dtype), 24)
        assert torch.equal(wide[:, 18:21], leaf)
        assert (wide[:, 21:] == torch.tensor([0.5, 0, 0], dtype=dtype)).all()
        both = torch.cat([module(leaf), leaf], dim=1)
        assert torch.equal(wide[:, :21], both)
        gradients = torch.autograd.grad(wide, [leaf, module.table], g)
        expected = torch.autograd.grad(both, [leaf, module.table], g[:, :21])
        for value, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)


def test_state_dict_round_trip():
    first, second = triplane(3, 4, 16, 8, 2), triplane(3, 4, 16, 8, 2, seed=1)
    second.load_state_dict(first.state_dict())
    points = torch.rand(20, 3)
    assert torch.equal(first(points), second(points))


@pytest.mark.parametrize(
    "sizes", [(0, 4, 8, 8, 2), (2, 0, 8, 8, 2), (2, 16, 8, 8, 2), (2, 4, 8, 0, 2), (2, 4, 8, 30, 2), (2, 4, 8, 8, 0)]
)
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="must"):
        HashTriplane(*sizes)
