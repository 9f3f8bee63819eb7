import numpy as np
import torch

from gensync_core.rendering.compositor import Layer, over
from gensync_core.rendering.synthesis import ping_pong


def test_ping_pong_never_jumps():
    index = ping_pong(5, 23)
    assert index.tolist()[:10] == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    assert np.abs(np.diff(index)).max() == 1
    assert ping_pong(1, 3).tolist() == [0, 0, 0]


def test_over_is_premultiplied():
    layer = Layer(torch.tensor([[[0.25, 0.0, 0.0]]]), torch.tensor([[0.5]]))
    torch.testing.assert_close(over(layer, torch.ones(1, 1, 3)), torch.tensor([[[0.75, 0.5, 0.5]]]))
