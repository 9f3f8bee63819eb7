"""The gate's reports are kept by content, thresholds and code, and by nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import made_up_footage
import pytest

from gensync_core.footage import gate
from gensync_core.footage.findings import FaceBox
from gensync_core.footage.gate import check_footage
from gensync_core.footage.gate_params import GateParams
from gensync_core.footage.gate_report import GateReport
from gensync_core.footage.kept_reports import check_once

PARAMS = GateParams(min_face_px=24)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were looked at."""
    seen: list[Path] = []

    def look(path: Path, params: GateParams) -> GateReport:
        seen.append(path)
        return check_footage(
            path, params, made_up_footage.senses(lambda frame: [FaceBox(1.0, 2.0, 40.0, 50.0)], sound_late_s=0.2)
        )

    monkeypatch.setattr(gate, "check_footage", look)
    return seen


def test_the_same_content_is_judged_once_under_any_name(
    make_clip: Callable[..., Path], tmp_path: Path, looks: list[Path]
) -> None:
    clip = make_clip()
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clip.read_bytes())
    first = check_once(clip, PARAMS, tmp_path / "kept", "code")
    second = check_once(copy, PARAMS, tmp_path / "kept", "code")
    assert looks == [clip]
    assert first.samples
    assert first.sound_late_s == 0.2
    assert second == replace(first, path=copy)


def test_other_thresholds_other_code_or_other_content_are_looked_at(
    make_clip: Callable[..., Path], tmp_path: Path, looks: list[Path]
) -> None:
    clip, kept = make_clip(), tmp_path / "kept"
    check_once(clip, PARAMS, kept, "code")
    check_once(clip, replace(PARAMS, min_fps=9.0), kept, "code")
    check_once(clip, PARAMS, kept, "changed")
    clip.write_bytes(clip.read_bytes() + b"more")
    check_once(clip, PARAMS, kept, "code")
    assert len(looks) == 4


def test_a_damaged_report_is_made_again_and_no_file_is_a_finding(
    make_clip: Callable[..., Path], tmp_path: Path, looks: list[Path]
) -> None:
    clip, kept = make_clip(), tmp_path / "kept"
    first = check_once(clip, PARAMS, kept, "code")
    for damage in ("", "{}", '{"schema_version": 1, "findings": [{}]}'):
        next(kept.iterdir()).write_text(damage)
        assert check_once(clip, PARAMS, kept, "code") == first
    assert len(looks) == 4
    assert check_once(tmp_path / "nowhere.mp4", PARAMS, kept, "code").codes() == {"unreadable"}
    assert len(list(kept.iterdir())) == 1
