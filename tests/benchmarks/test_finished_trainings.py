"""A training that is done is not done again, unless something that it depends on has changed."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gensync_core.gaussians.rasterize import Backend
from gensync_core.params import load_params
from gensync_core.paths import Project

ROOT = Path(__file__).parents[2]
FILES = ("clip", "wav", "masks", "track_arrays", "audio", "coarse")


@pytest.fixture
def trainings(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import finished_trainings

    return finished_trainings


@pytest.fixture
def laboratory(tmp_path: Path, trainings, asked, monkeypatch) -> Any:
    """Two speakers; whoever is to be trained is only written down."""

    def paths(_self: object, speaker: str) -> SimpleNamespace:
        return SimpleNamespace(**{name: tmp_path / f"{speaker}-{name}" for name in FILES})

    def run_apart(_self: object, _function: object, _laboratory: object, training: Any, *files: Path | None) -> SimpleNamespace:
        asked.append((training, *files))
        cost = {"seconds": 2.0, "cpu_seconds": 1.5, "images": 8}
        figures = {speaker: {"psnr_full": 30.0, "aperture_r": float("nan")} for speaker in training.speakers}
        return SimpleNamespace(result={"cost": cost, "peak_mb": 300.0, "figures": figures})

    monkeypatch.setattr(trainings.Laboratory, "paths", paths)
    monkeypatch.setattr(trainings.Laboratory, "run_apart", run_apart)
    (tmp_path / "gensync_core").mkdir()
    (tmp_path / "gensync_core" / "code.py").write_text("a = 1\n")
    for speaker in ("anna", "bert"):
        for name in FILES:
            (tmp_path / f"{speaker}-{name}").write_text(f"{speaker} {name}")
    return trainings.Laboratory(Project(tmp_path), load_params(ROOT / "params.yaml"), Backend("cpu", "cpu"))


@pytest.fixture
def asked() -> list[tuple[Any, ...]]:
    return []


def test_what_is_done_is_not_done_again(trainings, laboratory, asked) -> None:
    wanted = [trainings.Training(speakers=("anna",), steps=steps, seed=0) for steps in (2, 4)]

    first = trainings.Archive(laboratory).finish(wanted)
    again = trainings.Archive(laboratory).finish(wanted)

    assert len(asked) == 2
    assert again == first
    assert again[1].training.steps == 4
    assert again[0].cost == (2.0, 1.5, 8)
    assert again[0].figures == {"anna": {"psnr_full": 30.0, "aperture_r": None}}


def test_a_change_of_anything_it_depends_on_makes_another_training(trainings, laboratory) -> None:
    training = trainings.Training(speakers=("anna",), steps=2, seed=0)
    base = trainings.Training(speakers=("bert",), steps=2, seed=0, kept=True)
    root = laboratory.project.root
    keys = [
        trainings.Archive(laboratory).key(changed)
        for changed in (
            training,
            replace(training, speakers=("anna", "bert")),
            replace(training, steps=3),
            replace(training, seed=1),
            replace(training, seconds=8.0),
            replace(training, base=base),
            replace(training, base=replace(base, steps=3)),
        )
    ]
    other_values = {"model": {"rank": 7}, "loss": {"swap": 0.9}, "joint": {"motion_pairs": 5}, "evaluate": {"max_frames": 3}}
    for section, value in other_values.items():
        keys.append(trainings.Archive(laboratory.with_params({section: value})).key(training))
    assert trainings.Archive(laboratory).key(training) == keys[0]
    (root / "gensync_core" / "code.py").write_text("a = 2\n")
    keys.append(trainings.Archive(laboratory).key(training))
    (root / "anna-coarse").write_text("another start")
    keys.append(trainings.Archive(laboratory).key(training))

    assert len(set(keys)) == len(keys)
    (root / "bert-coarse").write_text("another start of somebody else")
    assert trainings.Archive(laboratory).key(training) == keys[-1]


def test_a_network_is_trained_before_somebody_is_adapted_to_it(trainings, laboratory, asked) -> None:
    base = trainings.Training(speakers=("bert",), steps=2, seed=0, kept=True)
    adapted = trainings.Training(speakers=("anna",), steps=4, seed=0, base=base)

    trainings.Archive(laboratory).finish([adapted, replace(adapted, steps=8)])

    (first, no_file, kept), (second, needed, not_kept), (_, needed_again, _) = asked
    assert (first, second) == (base, adapted)
    assert kept == needed == needed_again
    assert no_file is None
    assert not_kept is None


def test_steps_on_torsos_keep_their_proportion(trainings, laboratory) -> None:
    standard = replace(laboratory.params.joint, steps=1500, torso_steps=300)

    assert trainings.schedule(standard, 1500) == {"steps": 1500, "torso_steps": 300}
    assert trainings.schedule(standard, 150) == {"steps": 150, "torso_steps": 30}
