import pytest
import torch

from gensync_core.audio.windows import window


def test_windows_are_centred_on_the_frame_and_its_neighbours() -> None:
    features = torch.arange(100.0)[:, None].repeat(1, 3)
    windows = window(features, torch.tensor([50, 60]), neighbours=8, size=16)
    assert windows.shape == (2, 8, 3, 16)
    for neighbour in range(8):
        centre = 50 + neighbour - 4
        assert windows[0, neighbour, 0].tolist() == list(range(centre - 8, centre + 8))
    assert torch.equal(windows[1, 4, 2], torch.arange(52.0, 68.0))


def test_ends_repeat_the_first_and_the_last_feature() -> None:
    features = torch.arange(5.0)[:, None]
    windows = window(features, torch.tensor([0, 4]), neighbours=1, size=4)
    assert windows[:, 0, 0].tolist() == [[0, 0, 0, 1], [2, 3, 4, 4]]


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        window(torch.zeros(4, 2), torch.tensor([0]), neighbours=2, size=5)
