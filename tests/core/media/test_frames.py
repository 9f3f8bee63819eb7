import resource

import numpy as np
import pytest

from gensync_core.media.frames import FrameStore


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_frames_on_disk_are_those_in_memory(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (5, 8, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    store = FrameStore.of_file(tmp_path / "frames.npy")
    assert len(store) == 5
    assert store.shape == (8, 6, 3)
    assert all(np.array_equal(store[index], frames[index]) for index in (0, 4, 2, -1))
    with pytest.raises(IndexError):
        store[5]


def test_reading_all_frames_keeps_no_more_than_one_in_memory(tmp_path):
    path = tmp_path / "frames.npy"
    written = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(4000, 256, 256, 1))
    del written
    store, before = FrameStore.of_file(path), _peak_mib()
    assert sum(int(store[index].sum()) for index in range(len(store))) == 0
    assert _peak_mib() - before < 40, "all of them are 250 MiB"
