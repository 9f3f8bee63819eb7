"""Files in an inbox that are no footage, before the real gate: each is put aside with its reason, and takes nobody with it."""

import json
from pathlib import Path

import imageio_ffmpeg
import pytest

from gensync_core.paths import Project
from tasks.inbox import InboxSettings
from tasks.inbox_ledger import Ledger, State
from tasks.process import run_command

HASTY = InboxSettings(settle_s=0.0, max_attempts=2, backoff_s=0.0)


def short_video(path: Path) -> bytes:
    source = ["-f", "lavfi", "-i", "testsrc=duration=1:size=128x128:rate=25"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", *source, "-pix_fmt", "yuv420p", str(path)]
    assert run_command(command, cwd=path.parent).exit_code == 0
    return path.read_bytes()


@pytest.mark.slow
@pytest.mark.fault("corrupt inbox file")
@pytest.mark.usefixtures("prefect_server")
def test_a_corrupt_file_is_rejected_and_leaves_nothing(workspace: Project, tmp_path: Path) -> None:
    from flows.inbox import scan_and_onboard

    inbox = tmp_path / "inbox"
    inbox.mkdir()
    whole = short_video(tmp_path / "whole.mp4")
    damaged = {
        "empty.mp4": b"",
        "noise.mp4": bytes(number * 7 % 251 for number in range(20_000)),
        "first-half.mp4": whole[: len(whole) // 2],
        "overwritten.mp4": whole[:64] + bytes(len(whole) - 64),
        "text.mov": b"this is no film",
    }
    for name, content in damaged.items():
        (inbox / name).write_bytes(content)
    assert scan_and_onboard(workspace.root, str(inbox), HASTY) == []
    rows = {row.name: row for row in Ledger(workspace).latest()}
    assert {name: row.state for name, row in rows.items()} == dict.fromkeys(damaged, State.REJECTED)
    for name, content in damaged.items():
        assert (inbox / "rejected" / name).read_bytes() == content, "it is kept for whoever put it there"
        note = json.loads((inbox / "rejected" / f"{name}.json").read_text())
        assert note["reason"], name
    assert [path.name for path in inbox.iterdir()] == ["rejected"]
    assert workspace.registry().ids() == []
    assert [path for path in (workspace.root / "data").rglob("*") if path.is_file()] == []
    assert not (workspace.root / "dvc.lock").exists()
