"""The synth stage: exact length, constant memory, nothing half-written, and a record of how it was rendered."""

import subprocess
import sys

import made_up_avatar
import numpy as np
import pytest

from gensync_core.artefacts import read_json, sha256_of
from gensync_core.errors import FootageRejected, UsageError
from gensync_core.media.video import VideoWriter, probe
from gensync_core.stages.synth import run


def record(project, job: str) -> dict:
    return read_json(project.scratch.parent / "runs" / f"synth-{job}.json")


def test_the_video_is_as_long_as_the_speech_and_the_mode_is_recorded(tmp_path):
    speech = made_up_avatar.speech(13.33)
    project = made_up_avatar.project(tmp_path, {"long": speech, "short": speech[:21_000]})
    for job, mode, count in (("long", "full", 333), ("long", "fast", 333), ("short", "fast", 33)):
        run(project, job, made_up_avatar.params(mode))
        found = probe(project.render(job))
        assert (found.num_frames, found.width, found.fps) == (count, made_up_avatar.SIZE_PX, 25)
        assert found.audio_duration_s == pytest.approx(len(speech if job == "long" else speech[:21_000]) / 16_000, abs=0.07)
        made = record(project, job)
        assert made["frames"] == count
        assert made["mode"] == ("fast" if (job, mode) == ("long", "fast") else "full")
    assert "too few" in record(project, "short")["reason"]
    assert record(project, "long")["likeness"]["psnr_min"] > 40


def test_the_same_job_gives_the_same_bytes(tmp_path):
    project = made_up_avatar.project(tmp_path, {"job": made_up_avatar.speech(12.5)})
    digests = set()
    for _ in range(2):
        run(project, "job", made_up_avatar.params("fast"))
        digests.add(sha256_of(project.render("job")))
    assert len(digests) == 1


def test_what_cannot_be_rendered_is_said(tmp_path):
    project = made_up_avatar.project(tmp_path, {"empty": np.zeros(0, dtype=np.float32)})
    with pytest.raises(FootageRejected, match="no sound"):
        run(project, "empty", made_up_avatar.params())
    with pytest.raises(UsageError, match="known: empty"):
        run(project, "other", made_up_avatar.params())
    assert not project.render("empty").exists()


def test_a_failure_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    project = made_up_avatar.project(tmp_path, {"job": made_up_avatar.speech(2.0)})
    write = VideoWriter.write

    def fail_late(self: VideoWriter, frame: np.ndarray) -> None:
        if self.num_frames == 20:
            raise KeyError
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", fail_late)
    with pytest.raises(KeyError):
        run(project, "job", made_up_avatar.params())
    assert list(project.render("job").parent.iterdir()) == []


def test_a_killed_synthesis_leaves_no_video_and_the_next_one_succeeds(tmp_path):
    project = made_up_avatar.project(tmp_path, {"job": made_up_avatar.speech(2.0)})
    command = [sys.executable, made_up_avatar.__file__, str(tmp_path), "job"]
    killed = subprocess.run([*command, "20"], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not project.render("job").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert probe(project.render("job")).num_frames == 50


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_does_not_grow_with_the_speech(tmp_path):
    speech = made_up_avatar.speech(600.0)
    project = made_up_avatar.project(tmp_path, {"one": speech[: 60 * 16_000], "ten": speech})
    peak_mib = {}
    for job in ("one", "ten"):
        command = [sys.executable, made_up_avatar.__file__, str(tmp_path), job]
        peak_mib[job] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    assert probe(project.render("ten")).num_frames == 15_000
    assert peak_mib["ten"] < peak_mib["one"] + 20, peak_mib
