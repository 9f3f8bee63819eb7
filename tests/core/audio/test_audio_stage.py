from pathlib import Path

import numpy as np
import pytest

from gensync_core.artefacts import read_tensors, write_json
from gensync_core.audio.audio_params import AudioParams
from gensync_core.audio.waveform import write_waveform
from gensync_core.errors import ArtefactBroken
from gensync_core.params import Params
from gensync_core.paths import Project
from gensync_core.speakers import Registry, Speaker
from gensync_core.stages import audio as audio_stage


@pytest.fixture
def log_mel_params() -> Params:
    """Parameters of which only the section that the stage reads is filled."""
    params = object.__new__(Params)
    object.__setattr__(params, "audio", AudioParams(encoder="log-mel", layer=0, allow_log_mel_fallback=False))
    return params


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    speaker = Speaker(id="alice", raw="data/raw/alice.mp4", sha256="0" * 64, group="cohort")
    Registry({"alice": speaker}).save(project.speakers_file)
    paths = project.speaker(speaker)
    write_json(paths.clip_json, {"num_frames": 30})
    write_waveform(paths.wav, np.random.default_rng(0).uniform(-0.1, 0.1, 30 * 640).astype(np.float32))
    return project


def test_features_have_one_row_a_frame_and_say_what_made_them(project: Project, log_mel_params: Params) -> None:
    paths = project.speaker(project.registry().get("alice"))
    audio_stage.run(project, "alice", log_mel_params)
    first = paths.audio.read_bytes()
    tensors, meta = read_tensors(paths.audio)
    assert tensors["features"].shape == (30, 80)
    assert tensors["silence"].shape == (750, 80)
    assert tensors["features"].dtype == tensors["silence"].dtype == np.float32
    assert {key: meta[key] for key in ("encoder", "weights_sha256", "layer", "fps")} == {
        "encoder": "log-mel",
        "weights_sha256": "",
        "layer": 0,
        "fps": 25,
    }
    audio_stage.run(project, "alice", log_mel_params)
    assert paths.audio.read_bytes() == first


def test_sound_that_is_not_as_long_as_the_clip_is_an_error(project: Project, log_mel_params: Params) -> None:
    paths = project.speaker(project.registry().get("alice"))
    write_json(paths.clip_json, {"num_frames": 31})
    with pytest.raises(ArtefactBroken, match="31"):
        audio_stage.run(project, "alice", log_mel_params)
    assert not paths.audio.exists()
