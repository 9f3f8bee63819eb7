import pytest
import torch

from gensync_core.audio.windows import spans


def test_windows_are_centred_on_the_frame_and_its_neighbours() -> None:
    features = torch.arange(100.0)[:, None].repeat(1, 3)
    under = spans(features, torch.tensor([50, 60]), neighbours=8, size=16)
    assert under.shape == (2, 23, 3)
    for neighbour in range(8):
        centre = 50 + neighbour - 4
        assert under[0, neighbour : neighbour + 16, 0].tolist() == list(range(centre - 8, centre + 8))
    assert torch.equal(under[1, 4:20, 2], torch.arange(52.0, 68.0))


def test_ends_repeat_the_first_and_the_last_feature() -> None:
    features = torch.arange(5.0)[:, None]
    under = spans(features, torch.tensor([0, 4]), neighbours=1, size=4)
    assert under[..., 0].tolist() == [[0, 0, 0, 1], [2, 3, 4, 4]]


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        spans(torch.zeros(4, 2), torch.tensor([0]), neighbours=2, size=5)
