"""Made-up necks: a smooth one, and one with each thing that can be wrong with it."""

import numpy as np
import pytest

from gensync_core.evaluation.neck import neck_figures
from gensync_core.face.regions import Region

SIZE = 128
Y, X = np.mgrid[:SIZE, :SIZE]
HEAD = ((X - 64) / 30) ** 2 + ((Y - 44) / 36) ** 2 < 1
NECK = ~HEAD & (abs(X - 64) < 18) & (Y > 44) & (Y < 100)
TORSO = ~HEAD & ~NECK & (Y >= 92)
BODY = NECK | TORSO


@pytest.fixture
def labels() -> np.ndarray:
    made = np.full((SIZE, SIZE), Region.BACKGROUND, dtype=np.uint8)
    for mask, region in ((HEAD, Region.FACE), (NECK, Region.NECK), (TORSO, Region.TORSO)):
        made[mask] = region
    return made


@pytest.fixture
def truth() -> np.ndarray:
    """Skin that goes on from the head to the neck, a little darker from row to row, on a green screen."""
    skin = np.stack([200 - 0.3 * Y, 150 - 0.3 * Y, 120 - 0.3 * Y], axis=-1)
    return np.where((HEAD | BODY)[..., None], skin, [20, 180, 40]).round().astype(np.uint8)


def added(image: np.ndarray, mask: np.ndarray, levels: int) -> np.ndarray:
    return np.clip(image + levels * mask[..., None].astype(int), 0, 255).astype(np.uint8)


def test_the_truth_itself_has_neither_error_nor_seam(truth: np.ndarray, labels: np.ndarray) -> None:
    assert neck_figures(truth, truth, labels) == (0, 0)


def test_a_body_of_another_colour_is_a_seam_as_high_as_the_difference(truth: np.ndarray, labels: np.ndarray) -> None:
    figures = neck_figures(added(truth, BODY, 24), truth, labels)
    assert 8 < figures.colour_error < 16
    assert 16 < figures.seam < 25
    twice = neck_figures(added(truth, BODY, 48), truth, labels)
    assert twice.colour_error == pytest.approx(2 * figures.colour_error, rel=0.01)
    assert twice.seam > 1.8 * figures.seam


def test_an_error_without_an_edge_is_no_seam(truth: np.ndarray, labels: np.ndarray) -> None:
    figures = neck_figures(added(truth, HEAD | BODY, 15), truth, labels)
    assert figures.colour_error == pytest.approx(15, abs=1e-3)
    assert figures.seam < 1e-3


def test_a_dark_line_between_two_right_colours_is_a_seam(truth: np.ndarray, labels: np.ndarray) -> None:
    rim = HEAD & (((X - 64) / 28.5) ** 2 + ((Y - 44) / 34.5) ** 2 > 1)
    figures = neck_figures(added(truth, rim, -60), truth, labels)
    assert figures.seam > 25
    assert figures.colour_error < 20


def test_an_edge_that_the_truth_has_too_is_no_seam_even_a_pixel_beside(truth: np.ndarray, labels: np.ndarray) -> None:
    edged = added(truth, BODY, -50)
    assert neck_figures(edged, edged, labels).seam == 0
    beside = edged.copy()
    row_below = np.roll(HEAD, 1, axis=0) & BODY
    beside[row_below] = truth[row_below]
    assert neck_figures(beside, edged, labels).seam < 5
    assert neck_figures(truth, edged, labels).seam == 0
    assert neck_figures(truth, edged, labels).colour_error > 15


def test_what_stands_far_away_or_behind_does_not_count(truth: np.ndarray, labels: np.ndarray) -> None:
    far = (Y > 110) | (Y < 30) | ~(HEAD | BODY)
    assert neck_figures(added(truth, far, 80), truth, labels) == (0, 0)


def test_a_frame_without_head_or_body_has_no_figures(truth: np.ndarray, labels: np.ndarray) -> None:
    for gone in (HEAD, BODY):
        assert np.isnan(neck_figures(truth, truth, np.where(gone, Region.BACKGROUND, labels))).all()
