from itertools import pairwise

import cv2
import numpy as np
import pytest

from gensync_core.face.mask_filter import MaskFilter, most_probable

SIZE = 96
RNG = np.random.default_rng(5)
TEXTURE = cv2.GaussianBlur(RNG.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8), (7, 7), 0)


def disc(centre_x: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.hypot(columns - centre_x, rows - SIZE / 2) < 22


def scene(centre_x: float) -> np.ndarray:
    """A dark textured disc before a bright textured ground."""
    moved = cv2.warpAffine(TEXTURE, np.float32([[1, 0, centre_x - 40], [0, 1, 0]]), (SIZE, SIZE), borderMode=cv2.BORDER_WRAP)
    return np.where(disc(centre_x)[..., None], moved // 3, 130 + TEXTURE // 3).astype(np.uint8)


def planes(mask: np.ndarray) -> np.ndarray:
    return np.stack([~mask, mask]).astype(np.float32)


def overlap(labels: np.ndarray, mask: np.ndarray) -> float:
    return ((labels == 1) & mask).sum() / ((labels == 1) | mask).sum()


def test_masks_move_with_the_picture_between_judgements():
    masks = MaskFilter(0.5)
    assert not masks.follow(scene(36))
    masks.mix(planes(disc(36)))
    for x in (38, 40, 42, 44):
        assert masks.follow(scene(x))
    labels = masks.labels(SIZE, SIZE)
    assert overlap(labels, disc(44)) > 0.93
    assert overlap(labels, disc(36)) < 0.75  # where it would be, had nothing moved


def test_a_trembling_judgement_is_calmed():
    """A segmenter that is wrong by up to 2 px at random: its mask changes more than the filtered one."""
    masks, shown, judged = MaskFilter(0.8), [], []
    for _ in range(12):
        masks.follow(scene(48))
        judged.append(disc(48 + RNG.uniform(-2, 2)))
        masks.mix(planes(judged[-1]))
        shown.append(masks.labels(SIZE, SIZE) == 1)
    changes = [np.mean([np.mean(a != b) for a, b in pairwise(series[2:])]) for series in (shown, judged)]
    assert changes[0] < 0.4 * changes[1]
    assert overlap(shown[-1].astype(np.uint8), disc(48)) > 0.93


def test_at_a_cut_nothing_is_carried_over():
    masks = MaskFilter(0.9)
    masks.follow(scene(30))
    masks.mix(planes(disc(30)))
    assert not masks.follow(255 - scene(66))
    with pytest.raises(ValueError, match="mix in"):
        masks.labels(SIZE, SIZE)
    masks.mix(planes(disc(66)))
    assert overlap(masks.labels(SIZE, SIZE), disc(66)) == 1


def test_enlarged_boundaries_are_smooth():
    """Twice the size: a slanted edge follows the line within a pixel, which doubled pixels would not do."""
    masks, (rows, columns) = MaskFilter(0.0), np.mgrid[:64, :64]
    soft = np.clip((columns - 0.37 * rows - 15.3) / 2 + 0.5, 0, 1).astype(np.float32)
    masks.follow(np.zeros((64, 64, 3), np.uint8))
    masks.mix(np.stack([1 - soft, soft]))
    labels = masks.labels(128, 128)
    fine_rows, fine_columns = (np.mgrid[:128, :128] + 0.5) / 2 - 0.5
    line = fine_columns - 0.37 * fine_rows - 15.3
    np.testing.assert_array_equal(labels[np.abs(line) > 0.3], (line > 0)[np.abs(line) > 0.3])


def test_results_do_not_depend_on_the_number_of_threads():
    results, threads = [], cv2.getNumThreads()
    try:
        for count in (1, 2):
            cv2.setNumThreads(count)
            masks = MaskFilter(0.5)
            masks.follow(scene(36))
            masks.mix(planes(disc(36)))
            for x in (37, 39, 42):
                masks.follow(scene(x))
            results.append(masks.labels(2 * SIZE, 2 * SIZE))
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(*results)


def test_most_probable_is_argmax():
    probabilities = RNG.integers(0, 255, (6, 9, 7)).astype(np.uint8)
    np.testing.assert_array_equal(most_probable(probabilities), probabilities.argmax(axis=0))
