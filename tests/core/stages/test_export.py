from pathlib import Path

import pytest
import torch

from gensync_core.errors import ArtefactBroken
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.ply import read_ply
from gensync_core.gaussians.splat_file import FORMATS
from gensync_core.geometry.camera import Intrinsics
from gensync_core.geometry.motion import Motion
from gensync_core.model.speaker_state import Aligner, SpeakerState
from gensync_core.paths import Project
from gensync_core.speakers import Registry, Speaker
from gensync_core.stages.export import export


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    anna = Speaker(id="anna", raw="data/raw/anna.mp4", sha256="0" * 64, group="cohort")
    Registry({"anna": anna}).save(project.speakers_file)
    return project


def save(path: Path, num_head: int) -> SpeakerState:
    generator = torch.Generator().manual_seed(num_head)
    head, torso = (
        GaussianCloud.from_points(torch.rand(count, 3, generator=generator), torch.rand(count, 3, generator=generator), 0.1)
        for count in (num_head, 2)
    )
    state = SpeakerState(
        head=head.with_sh_degree(1), torso=torso, identity=torch.zeros(4), aligner=Aligner(torch.ones(3), torch.zeros(3)),
        torso_centre=torch.zeros(3), torso_half_size=1.0, plate=torch.zeros(8, 8, 3),
        camera=Intrinsics(fx=8.0, fy=8.0, cx=4.0, cy=4.0, width=8, height=8), mean_pose=torch.eye(4),
        take=Motion(torch.eye(4)[None], torch.eye(4)[None], torch.zeros(1, 6)), meta={},
    )  # fmt: skip
    state.save(path)
    return state


@pytest.mark.parametrize("form", FORMATS)
def test_the_head_is_written_in_each_format(project: Project, form: str, tmp_path: Path) -> None:
    state = save(project.speaker(project.registry().get("anna")).coarse, 5)
    assert export(project, "anna", tmp_path / "head", form) == 5
    content = (tmp_path / "head").read_bytes()
    assert content.startswith(b"ply") is (form != "splat")
    if form == "ply":
        assert torch.equal(read_ply(tmp_path / "head").sh, state.head.sh)


def test_the_trained_head_goes_before_the_coarse_one(project: Project, tmp_path: Path) -> None:
    paths = project.speaker(project.registry().get("anna"))
    with pytest.raises(ArtefactBroken):
        export(project, "anna", tmp_path / "head.ply")
    save(paths.coarse, 5)
    assert export(project, "anna", tmp_path / "head.ply") == 5
    save(paths.model, 7)
    assert export(project, "anna", tmp_path / "head.ply") == 7
