import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from gensync_core.errors import ArtefactBroken
from gensync_core.evaluation.contact_sheet import arrange, tile
from gensync_core.evaluation.evaluate_params import EvaluateParams
from gensync_core.evaluation.figures import METRICS
from gensync_core.evaluation.protocol import ImageScores, Take, sync_figures
from gensync_core.evaluation.provenance import code_digest, parameter_digest
from gensync_core.evaluation.report import (
    Apertures,
    ContactSheet,
    Evaluation,
    Loss,
    read_losses,
    write_report,
)
from gensync_core.face.expression import mouth_aperture
from gensync_core.face.regions import Region
from gensync_core.losses.lpips import Lpips

FILES = ("aperture.csv", "losses.csv", "metrics.json", "report.html")


def example(folder):
    rng = np.random.default_rng(0)
    true = rng.random(30) * 0.2
    driven = true + 0.01
    driven[4] = np.nan
    video = folder / "pair.mp4"
    video.write_bytes(b"not really a video")
    tiles = [[tile(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8), 32) for _ in range(2)] for _ in range(2)]
    return Evaluation(
        speaker="alice",
        metrics={"psnr_full": 30.125, "offset_frames": -2, "aperture_r_gap": None, "lmd_iod": float("nan"), "frames": 30},
        facts=[("size", "128 px")],
        digests=[("clip", "ab" * 32)],
        parameters={"run": {"seed": 0}, "evaluate": {"controls": True}},
        apertures=Apertures(first_frame=100, fps=25, true=true, driven=driven, shuffled=true[::-1].copy()),
        losses=[Loss(20 * i, stage, "total", 1 / (1 + i)) for stage in ("coarse", "joint") for i in range(1, 6)],
        sheet=ContactSheet(image=arrange(tiles), rows=("truth", "result"), captions=("4.00 s\n0.1 / 0.1", "4.04 s")),
        attention=ContactSheet(image=arrange(tiles[:1]), rows=("",), captions=("voice\n0.75 / 0.10", "pose\n0.00 / 0.20")),
        video=video,
    )


def test_the_same_evaluation_gives_the_same_bytes(tmp_path):
    evaluation = example(tmp_path)
    for name in ("first", "second"):
        write_report(tmp_path / name, evaluation)
    for file in FILES:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(FILES)


def test_the_page_needs_nothing_else(tmp_path):
    write_report(tmp_path / "r", example(tmp_path))
    html = (tmp_path / "r" / "report.html").read_text()
    for reference in ("http:", "https:", "//cdn", "@import", "url(", "<link", "<script", "file:"):
        assert reference not in html
    assert html.count('src="data:') == 3
    assert html.count("<svg") == 3


def test_the_page_shows_every_figure_with_its_meaning(tmp_path):
    write_report(tmp_path / "r", example(tmp_path))
    html = (tmp_path / "r" / "report.html").read_text()
    assert all(f'title="{key}"' in html for key in METRICS)
    assert "30.12" in html  # psnr, rounded to even
    assert "−2 " in html or "−2<" in html
    assert "nan" not in re.sub(r'"data:[^"]*"', "", html).lower()


def test_the_map_of_attention_is_shown_where_there_is_one(tmp_path):
    evaluation = example(tmp_path)
    for name, chosen in (("with", evaluation), ("without", replace(evaluation, attention=None))):
        write_report(tmp_path / name, chosen)
    shown, hidden = ((tmp_path / name / "report.html").read_text() for name in ("with", "without"))
    assert "What each Gaussian listens to" in shown
    assert "<span>voice<br>0.75 / 0.10<br></span>" in shown
    assert "What each Gaussian listens to" not in hidden
    assert hidden.count('src="data:') == 2


def test_a_speaker_cannot_inject_markup(tmp_path):
    write_report(tmp_path / "r", replace(example(tmp_path), speaker="<script>x</script>"))
    assert "<script" not in (tmp_path / "r" / "report.html").read_text()


def test_metrics_are_valid_json_with_null_for_unknown(tmp_path):
    write_report(tmp_path / "r", example(tmp_path))
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["schema_version"] == 1
    assert metrics["psnr_full"] == 30.125
    assert metrics["lmd_iod"] is None


def test_curves_keep_frames_and_gaps(tmp_path):
    write_report(tmp_path / "r", example(tmp_path))
    with (tmp_path / "r" / "aperture.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "time_s", "true", "driven", "shuffled", "silent"]
    assert (rows[4]["frame"], rows[4]["time_s"], rows[4]["driven"], rows[4]["silent"]) == ("104", "4.160", "", "")
    assert len(rows) == 30


def test_training_logs_are_read_with_their_stage(tmp_path):
    log = tmp_path / "joint.csv"
    log.write_text("step,name,value\n20,total,0.5\n40,total,0.25\n")
    assert read_losses(log, "joint") == [Loss(20, "joint", "total", 0.5), Loss(40, "joint", "total", 0.25)]
    log.write_text("step,value\n20,x\n")
    with pytest.raises(ArtefactBroken, match=r"joint\.csv"):
        read_losses(log, "joint")
    with pytest.raises(ArtefactBroken, match="absent"):
        read_losses(tmp_path / "absent.csv", "joint")


def test_image_and_sync_figures_have_exactly_the_listed_names():
    rng = np.random.default_rng(2)
    landmarks = rng.uniform(10, 50, (8, 478, 3)).astype(np.float32)
    frames = rng.integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    labels = np.full((64, 64), Region.BACKGROUND, dtype=np.uint8)
    labels[10:50, 10:50], labels[50:, 10:50] = Region.FACE, Region.NECK
    scores = ImageScores(_AbsoluteDifference())
    for landmarks_px in (landmarks[0], np.full_like(landmarks[0], np.nan)):
        scores.add(frames[0], frames[0] / 255, np.ones((64, 64)), frames[1], labels, landmarks_px)
    means = scores.means()
    assert all(np.isfinite(value) for value in means.values())
    take = Take(landmarks, mouth_aperture(landmarks))
    figures = means | sync_figures(take, take, None, None, None, resolution=64, max_offset=2, control_shift=50)
    assert list(figures) == list(METRICS)
    assert figures["aperture_r"] == pytest.approx(1)
    assert figures["aperture_r_gap"] is None
    assert figures["offset_frames"] == 0
    assert figures["jitter_ratio"] == pytest.approx(1)
    assert figures["lpips_full"] == pytest.approx(np.abs(frames[0] / 255 - frames[1] / 255).mean(), rel=1e-5)


class _AbsoluteDifference(Lpips):
    """In the place of LPIPS; refuses what is too small for it."""

    def __init__(self):
        self.device = torch.device("cpu")

    def __call__(self, images, targets):
        assert min(images.shape[1:3]) >= 64
        return (images - targets).abs().mean((1, 2, 3))


def test_without_the_network_there_are_no_perceptual_figures():
    scores, frame = ImageScores(), np.zeros((64, 64, 3), dtype=np.uint8)
    landmarks = np.random.default_rng(0).uniform(10, 50, (478, 3)).astype(np.float32)
    scores.add(frame, frame / 255, np.ones((64, 64)), frame, np.zeros((64, 64), dtype=np.uint8), landmarks)
    means = scores.means()
    assert np.isnan([means["lpips_full"], means["lpips_mouth"], means["neck_seam"]]).all()


@pytest.mark.parametrize(
    "change",
    [{"max_frames": 2}, {"control_shift_s": 0.0}, {"max_offset_frames": -1}, {"sheet_frames": 0}, {"sheet_frames": 99}],
)
def test_parameters_out_of_range_are_refused(change):
    good = EvaluateParams(
        max_frames=None, controls=True, control_shift_s=2.0, max_offset_frames=10, sheet_frames=8, lpips=False
    )
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(good, **change)


def test_code_digest_sees_names_and_contents_of_sources_only(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    first = code_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.py").write_text("cache")
    (tmp_path / "notes.txt").write_text("not code")
    assert code_digest(tmp_path) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert code_digest(tmp_path) != first
    assert code_digest() == code_digest()


def test_parameter_digest_does_not_depend_on_order():
    assert parameter_digest({"a": 1, "b": {"c": 2.5}}) == parameter_digest({"b": {"c": 2.5}, "a": 1})
    assert parameter_digest({"a": 1}) != parameter_digest({"a": 2})
