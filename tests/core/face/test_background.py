import numpy as np
import pytest

from gensync_core.face.background import PlateBuilder
from gensync_core.face.regions import Region

RNG = np.random.default_rng(11)
SCENE = np.dstack([np.tile(np.linspace(40, 200, 64), (48, 1)), np.full((48, 64), 90), np.full((48, 64), 30)])


def scene_with_person(left: int) -> tuple[np.ndarray, np.ndarray]:
    frame = np.clip(SCENE + RNG.normal(size=SCENE.shape) * 4, 0, 255)
    labels = np.full(SCENE.shape[:2], Region.BACKGROUND, dtype=np.uint8)
    labels[12:, left : left + 14] = Region.TORSO
    frame[labels == Region.TORSO] = (255, 255, 255)
    return frame.astype(np.uint8), labels


def test_a_moving_person_leaves_a_clean_plate():
    builder = PlateBuilder(80)
    for step in range(80):
        builder.add(*scene_with_person(left=2 + step % 46))
    plate, unseen = builder.finish()
    assert not unseen.any()
    assert np.abs(plate.astype(float) - SCENE).mean() < 3
    assert plate.max() < 215


def test_what_was_never_seen_is_inpainted_and_reported():
    builder = PlateBuilder(30)
    for _ in range(30):
        builder.add(*scene_with_person(left=24))
    made = builder.finish()
    assert 0.15 < made.inpainted_share < 0.35
    assert made.unseen[30, 30]
    assert not made.unseen[30, 5]
    plate = made.image
    assert np.abs(plate.astype(float) - SCENE).max() < 60


def test_a_passing_stranger_does_not_stay():
    builder = PlateBuilder(60)
    for step in range(60):
        frame, labels = scene_with_person(left=44)
        if 20 <= step < 26:
            frame[:, 5:15] = 0
        builder.add(frame, labels)
    plate, _ = builder.finish()
    assert np.abs(plate[:, 5:15].astype(float) - SCENE[:, 5:15]).mean() < 8


def test_of_a_long_clip_some_frames_are_enough():
    builder = PlateBuilder(num_frames=400)
    for step in range(400):
        builder.add(*scene_with_person(left=2 + step // 9))
    plate, unseen = builder.finish()
    assert not unseen.any()
    assert np.abs(plate.astype(float) - SCENE).mean() < 3


def test_what_is_behind_the_speaker_most_of_the_time_counts_however_the_clip_begins():
    builder = PlateBuilder(400)
    for step in range(400):
        frame, labels = scene_with_person(left=2 + step // 9)
        if step < 60:
            frame[:, 50:] = 0  # another framing, before a cut
        builder.add(frame, labels)
    plate, _ = builder.finish()
    assert np.abs(plate[:, 55:].astype(float) - SCENE[:, 55:]).mean() < 4


def test_an_empty_clip_is_an_error():
    with pytest.raises(ValueError, match="no frame"):
        PlateBuilder(0).finish()
