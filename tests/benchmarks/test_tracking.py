"""The figures of `benchmarks/tracking.py`; benchmarks are programs, so their folder is put on the path here."""

from pathlib import Path

import numpy as np
import pytest

from gensync_core.geometry.camera import pose_matrix
from gensync_core.geometry.rotation import rotvec_to_matrix

T = 60


@pytest.fixture
def tracking(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import tracking

    return tracking


def poses() -> np.ndarray:
    time_s = np.arange(T) / 25
    turns = np.column_stack([0.1 * np.sin(3 * time_s), 0.2 * np.sin(2 * time_s), 0.05 * np.cos(time_s)])
    return pose_matrix(rotvec_to_matrix(turns), np.column_stack([np.sin(time_s), np.cos(time_s), 8 + 0.3 * np.sin(2 * time_s)]))


def test_what_straight_ahead_is_and_how_large_a_head_is_are_no_errors(tracking):
    found, turn = poses(), rotvec_to_matrix(np.array([0.05, -0.02, 0.01]))
    found[:, :3, 3] = 1.07 * found[:, :3, 3]
    found[:, :3, :3] = found[:, :3, :3] @ turn
    figures = tracking.accuracy(found, poses())
    assert figures["rotation_deg"] == pytest.approx(0, abs=1e-6)
    assert figures["rotation_as_is_deg"] == pytest.approx(np.degrees(np.sqrt(0.003)), abs=0.01)
    assert figures["translation_pct"] == pytest.approx(0, abs=1e-6)
    assert figures["translation_as_is_pct"] == pytest.approx(7, abs=0.1)
    assert figures["jitter_deg"] == pytest.approx(0, abs=1e-6)


def test_a_trembling_pose_is_an_error_and_jitter(tracking):
    still = np.repeat(poses()[:1], T, axis=0)
    found = still.copy()
    tremble = np.radians(np.where(np.arange(T) % 2, 0.5, -0.5))
    found[:, :3, :3] = rotvec_to_matrix(tremble[:, None] * np.array([[1.0, 0, 0]])) @ still[:, :3, :3]
    figures = tracking.accuracy(found, still)
    assert figures["rotation_deg"] == pytest.approx(0.5, abs=0.01)
    assert figures["jitter_deg"] == pytest.approx(2.0, abs=0.01)


def test_jitter_is_judged_where_the_true_head_is_still(tracking):
    row = {
        "tracker": tracking.STAGE,
        "rotation_deg": 0.5,
        "translation_pct": 0.2,
        "sequence": "turning",
        "still": False,
        "jitter_deg": 0.2,
    }
    lines = tracking.verdicts([row, {**row, "sequence": "still", "still": True, "jitter_deg": 0.01, "rotation_deg": 1.5}])
    assert [line.rsplit(": ", 1)[1] for line in lines] == ["MISSED", "met", "met"]
