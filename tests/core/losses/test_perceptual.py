"""Which patch is looked at, what of the picture it sees, and what happens where the weights are not to be had."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_training import LOSSES
from torch import Tensor

from gensync_core.errors import AssetMissing
from gensync_core.losses import lpips_weights
from gensync_core.losses.layer_loss import Truth
from gensync_core.losses.lpips import Lpips
from gensync_core.losses.perceptual import Look, patch_error

SIDE, HEAD = 96, slice(30, 80)
MOUTH = (50, 60, 62, 68)


class Watching(Lpips):
    """In the place of LPIPS: mean squared difference; keeps what it was shown."""

    def __init__(self) -> None:
        self.image, self.target = torch.empty(0), torch.empty(0)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        self.image, self.target = images[0], targets[0]
        return (images - targets).square().mean((1, 2, 3))


def truth() -> Truth:
    """A frame whose red is the column and whose green is the row; label 1 is the head."""
    frame = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)
    frame[..., 0], frame[..., 1] = torch.arange(SIDE)[None], torch.arange(SIDE)[:, None]
    labels = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    labels[HEAD, HEAD] = 1
    covered = torch.zeros(256)
    covered[1] = 1
    return Truth(frame, labels, covered)


def seen(draw: tuple[float, float, float], mouth: tuple[int, int, int, int] = MOUTH) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the patch, the last two inclusive."""
    watching = Watching()
    patch_error(Look(watching, draw), torch.zeros(SIDE, SIDE, 3), torch.zeros(SIDE, SIDE), truth(), torch.ones(3), mouth)
    corners = (watching.target[[0, -1], [0, -1]] * 255).round().int()
    return int(corners[0, 0]), int(corners[0, 1]), int(corners[1, 0]), int(corners[1, 1])


def test_half_of_the_patches_lie_around_the_mouth_whatever_else_was_drawn() -> None:
    assert seen((0.49, 0.0, 0.9)) == seen((0.0, 0.7, 0.1)) == (24, 32, 87, 95)


def test_the_others_lie_across_the_head_and_always_in_the_frame() -> None:
    assert seen((0.5, 0.0, 0.0)) == (0, 0, 63, 63)
    assert seen((0.9, 0.5, 0.5)) == (23, 23, 86, 86)
    assert seen((0.9, 0.999, 0.2)) == (32, 8, 95, 71)
    assert seen((0.0, 0.0, 0.0), mouth=(-30, 90, -10, 130)) == (0, 32, 63, 95)


def test_what_is_transparent_shows_the_colour_inside_the_head_and_the_frame_around_it() -> None:
    watching, behind = Watching(), torch.tensor([0.2, 0.4, 0.6])
    image, alpha = torch.zeros(SIDE, SIDE, 3, requires_grad=True), torch.zeros(SIDE, SIDE, requires_grad=True)
    patch_error(Look(watching, (0.5, 0.0, 0.0)), image, alpha, truth(), behind, MOUTH).backward()
    inside = truth().labels[:64, :64] == 1
    assert torch.allclose(watching.image[inside], behind)
    assert torch.equal(watching.image[~inside], watching.target[~inside])
    assert image.grad is not None
    assert alpha.grad is not None
    assert (image.grad[:64, :64][inside][:, 2] != 0).all()  # red and green of the frame may be those of the colour
    assert (image.grad[64:] == 0).all()
    assert (alpha.grad[:64, :64][inside] != 0).any()


def test_without_the_weights_training_goes_on_without_the_term_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def missing(asset: str) -> Path:
        asked.append(asset)
        raise AssetMissing("found nowhere")

    monkeypatch.setattr(lpips_weights, "resolve", missing)
    wanted = replace(LOSSES, perceptual=0.1)
    with caplog.at_level(logging.WARNING):
        assert lpips_weights.without_missing_weights(wanted) == replace(wanted, perceptual=0.0)
    assert "training without the perceptual loss (loss.perceptual is 0.1): found nowhere" in caplog.text
    assert lpips_weights.without_missing_weights(LOSSES) is LOSSES
    assert asked == ["lpips-alex"]
    monkeypatch.setattr(lpips_weights, "resolve", lambda _: Path("there"))
    assert lpips_weights.without_missing_weights(wanted) == wanted
