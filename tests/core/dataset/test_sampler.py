import numpy as np

from gensync_core.dataset.clip_dataset import SplitParams, balanced_weights, mouth_box
from gensync_core.dataset.sampler import adjacent_pairs, mixed_identities


def test_every_batch_mixes_identities():
    weights = [np.full(10, 0.1)] * 4
    for step in range(50):
        batch = mixed_identities(3, step, weights, 3)
        assert len({choice.speaker for choice in batch}) == 3


def test_choices_depend_on_seed_and_step_only():
    weights = [np.full(100, 0.01)] * 3
    assert mixed_identities(1, 7, weights, 4) == mixed_identities(1, 7, weights, 4)
    assert mixed_identities(1, 7, weights, 4) != mixed_identities(1, 8, weights, 4)
    assert mixed_identities(1, 7, weights, 4) != mixed_identities(2, 7, weights, 4)


def test_open_mouths_are_drawn_as_often_as_closed_ones():
    aperture = np.r_[np.zeros(90), np.full(10, 1.0)].astype(np.float32)
    weights = balanced_weights(aperture)
    assert np.isclose(weights.sum(), 1)
    assert np.isclose(weights[:90].sum(), 0.5)


def test_pairs_stay_inside_the_training_part():
    first = adjacent_pairs(0, 0, 5, 1000)
    assert first.min() == 0
    assert first.max() == 3


def test_split_is_the_last_eleventh():
    assert SplitParams(test_share=1 / 11).num_train(1100) == 1000
    assert SplitParams(test_share=1 / 11).num_train(2) == 1


def test_mouth_box_is_square_around_the_corners():
    landmarks = np.zeros((478, 3), dtype=np.float32)
    landmarks[61, :2], landmarks[291, :2] = (40, 60), (60, 60)
    assert mouth_box(landmarks, 100, 100, margin=0.5) == (30, 40, 70, 80)
