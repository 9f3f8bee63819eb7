import numpy as np
import pytest

from gensync_core.dataset.clip_dataset import balanced_weights, mouth_box
from gensync_core.dataset.sampler import adjacent_pairs, mixed_identities, with_replay
from gensync_core.dataset.split_params import SplitParams


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


@pytest.mark.parametrize(("batch_size", "share"), [(2, 0.5), (1, 0.5), (3, 0.5), (4, 0.25), (5, 0.3), (2, 0.0)])
def test_the_share_of_replayed_images_is_what_it_says(batch_size, share):
    weights = [np.full(10, 0.1)] * 5
    old = 0
    for step in range(40):
        batch = with_replay(3, step, weights, batch_size, num_old=3, replay_share=share)
        assert len(batch) == batch_size
        of_old = [choice for choice in batch if choice.speaker < 3]
        assert len({choice.speaker for choice in of_old}) == len(of_old)
        old += len(of_old)
        assert abs(old - share * batch_size * (step + 1)) < 1
    assert old == round(share * batch_size * 40)


def test_replay_draws_from_everybody_and_depends_on_seed_and_step_only():
    weights = [np.full(10, 0.1), np.full(20, 0.05), np.full(30, 1 / 30)]
    batches = [with_replay(3, step, weights, 2, num_old=2, replay_share=0.5) for step in range(60)]
    assert {choice.speaker for batch in batches for choice in batch} == {0, 1, 2}
    assert all(choice.frame < len(weights[choice.speaker]) for batch in batches for choice in batch)
    assert batches[7] == with_replay(3, 7, weights, 2, num_old=2, replay_share=0.5)
    assert batches[7] != batches[8]


@pytest.mark.parametrize("num_old", [0, 3])
def test_without_old_or_without_new_speakers_all_images_are_of_the_others(num_old):
    batch = with_replay(3, 0, [np.full(10, 0.1)] * 3, 2, num_old=num_old, replay_share=0.5)
    assert len({choice.speaker for choice in batch}) == 2
