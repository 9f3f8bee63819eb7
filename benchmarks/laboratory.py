"""What the benchmarks of quality share: prepared speakers, trainings in memory, held-out figures, results files.

A laboratory is a project folder of its own (`tasks.workspace`): `dvc repro` prepares its speakers up to the coarse
Gaussians and remakes what a change of code or parameters made stale; whatever is trained after that stays in memory.
Without clips the speakers are those that are there already, or two built-in samples where nobody is.
"""

import argparse
import json
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from process_memory import peak_bytes

from gensync_core.artefacts import sha256_of
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.evaluation.provenance import code_digest
from gensync_core.evaluation.trial import Trial
from gensync_core.gaussians.rasterize import Backend, choose_backend
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.params import Params, digest, load_params
from gensync_core.paths import Project, SpeakerPaths
from gensync_core.progress import progress
from gensync_core.rendering.synthesis import Avatar
from gensync_core.training.adapt import adapt_speaker
from gensync_core.training.joint import train_joint
from tasks import dvc_project, registration
from tasks.workspace import create_workspace, source_root

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
SAMPLE_SPEAKERS = ("astronaut", "hopper")
SAMPLE_SECONDS = 20
PREPARED_AT_ONCE = 2

Overrides = Mapping[str, Mapping[str, Any]]
"""Section of `params.yaml` -> key -> value."""


class Cost(NamedTuple):
    """What a training cost; `cpu_seconds` are the process's own, which busy neighbours change less than the others."""

    seconds: float
    cpu_seconds: float
    images: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A network, the speakers that were trained with it, and what that cost."""

    network: GenSync
    states: dict[str, SpeakerState]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Speakers that are prepared up to their coarse Gaussians."""

    project: Project
    params: Params
    backend: Backend

    @classmethod
    def open(cls, folder: Path, clips: Sequence[Path], overrides: Overrides) -> "Laboratory":
        """Prepare the speakers of `clips`, each named as its file, as far as they are not yet.

        A laboratory may hold more speakers than are asked for: what was prepared stays. Samples come into an empty one only.
        """
        project = create_workspace(folder, source_root(), overrides)
        samples = [] if clips or project.registry().speakers else SAMPLE_SPEAKERS
        for clip in [*clips, *(make_sample(name, project.root / "samples") for name in samples)]:
            if clip.stem not in project.registry().speakers:
                registration.add_speaker(project, clip, clip.stem, "cohort")
        _prepare(project)
        params = load_params(project.params_file)
        return cls(project, params, choose_backend(params.render))

    @property
    def speakers(self) -> list[str]:
        """Ids of all prepared speakers."""
        return self.project.registry().ids()

    def paths(self, speaker: str) -> SpeakerPaths:
        """Artefacts of a speaker."""
        return self.project.speaker(self.project.registry().get(speaker))

    def clip(self, speaker: str) -> ClipDataset:
        """A speaker's clip."""
        return ClipDataset.open(self.paths(speaker), self.project.scratch / "frames", self.params.split)

    def coarse(self, speaker: str) -> SpeakerState:
        """A speaker's coarse start, loaded anew: training changes it."""
        return SpeakerState.load(self.paths(speaker).coarse, self.backend.device)

    def with_params(self, overrides: Overrides) -> "Laboratory":
        """The same speakers under other parameters of training or evaluation; their preparation stays as it is."""
        changed = {name: replace(getattr(self.params, name), **section) for name, section in overrides.items()}
        return replace(self, params=replace(self.params, **changed))

    def train(
        self,
        speakers: Sequence[str],
        *,
        seed: int = 0,
        starts: Mapping[str, SpeakerState] | None = None,
        clips: Mapping[str, ClipDataset] | None = None,
    ) -> Trained:
        """Train some speakers jointly, from their coarse Gaussians and clips unless other ones are given."""
        states = {speaker: (starts or {}).get(speaker) or self.coarse(speaker) for speaker in speakers}
        data = [(clips or {}).get(speaker) or self.clip(speaker) for speaker in speakers]
        schedule, params = self.params.joint, self.params
        watch = _Stopwatch()
        with tempfile.TemporaryDirectory() as scratch:
            network, _, _ = train_joint(
                data, list(states.values()), params.model, schedule, params.loss, self.backend, seed, Path(scratch) / "joint"
            )
        return Trained(network, states, watch.cost((schedule.steps + schedule.torso_steps) * schedule.batch_size))

    def adapt(self, speaker: str, network: GenSync, *, seed: int = 0, clip: ClipDataset | None = None) -> Trained:
        """Fit one speaker, from the coarse Gaussians and clip unless another one is given, against a network that stays."""
        state, schedule, params = self.coarse(speaker), self.params.adapt, self.params
        data = clip or self.clip(speaker)
        watch = _Stopwatch()
        with tempfile.TemporaryDirectory() as scratch:
            adapt_speaker(data, state, network, schedule, params.loss, self.backend, seed, Path(scratch) / "adapt", speaker)
        cost = watch.cost((schedule.steps + schedule.torso_steps) * schedule.batch_size)
        return Trained(network, {speaker: state}, cost)

    def digest(self, speakers: Iterable[str], *details: object) -> str:
        """Of all that a training of some speakers depends on: code, parameters, their prepared files, and `details`."""
        inputs = {speaker: _digests(self.paths(speaker)) for speaker in sorted(speakers)}
        code = code_digest(self.project.root / "gensync_core")  # trainings run on the laboratory's copy
        return digest(self.params, self.backend, code, inputs, *details)

    def rehearse(self, speaker: str) -> None:
        """Two steps that count for nothing: afterwards all is loaded that a process loads on first use (5 CPU seconds)."""
        self.with_params({"joint": {"steps": 1, "torso_steps": 1}}).train([speaker])

    def score(self, trained: Trained, speaker: str) -> dict[str, float | int | None]:
        """Figures of `evaluation.figures.METRICS` on the speaker's held-out frames."""
        data = self.clip(speaker)
        frames = np.arange(data.num_train, data.num_frames)[: self.params.evaluate.max_frames]
        avatar = Avatar(trained.network, trained.states[speaker], self.backend)
        looks = Trial.num_looks(len(frames), self.params.evaluate)
        with tempfile.TemporaryDirectory() as folder, progress(f"score {speaker}", looks) as bar:
            trial = Trial(data, avatar, frames, self.params.evaluate, self.params.audio, bar)
            return trial.run(self.paths(speaker).wav, Path(folder) / "pair.mp4").figures

    def run_apart(self, function: Callable[..., Any], *arguments: Any) -> "Apart":
        """`run_apart`, but on the laboratory's own copy of the core: who edits the sources meanwhile changes no result."""
        core = str(self.project.root)
        sys.path.insert(0, core)  # a fresh process takes over the path as it is now
        try:
            return run_apart(function, *arguments)
        finally:
            sys.path.remove(core)


class Apart(NamedTuple):
    """The result of a call in a process of its own, and the most memory that the process held."""

    result: Any
    peak_mb: float


def run_apart(function: Callable[..., Any], *arguments: Any) -> Apart:
    """Call `function` (of a module, with arguments that can be pickled) in a fresh process, to see what memory it takes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_measured, function, *arguments).result()


def add_arguments(parser: argparse.ArgumentParser, *, size_px: int) -> None:
    """`--work`, `--clips`, `--size` and `--json`, which the benchmarks of quality have in common."""
    parser.add_argument("--work", type=Path, default=Path(".gensync") / "bench", help="folder of the laboratory; kept")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="footage; without: who is in the laboratory")
    parser.add_argument("--size", type=int, default=size_px, help="working size, px")
    parser.add_argument("--json", type=Path, help="also write all figures here")


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]) -> str:
    """Rows as text; columns are key, title and number format. A value that is missing or None shows as a dash."""
    lines = [[title for _, title, _ in columns]]
    for row in rows:
        lines.append(["-" if row.get(key) is None else format(row[key], form) for key, _, form in columns])
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def write_results(
    name: str,
    rows: list[dict[str, Any]],
    json_file: Path | None,
    results: Path = RESULTS,
    further: Mapping[str, Any] | None = None,
) -> Path:
    """`<name>.csv` among the results, and everything with the machine's kind to `json_file`; returns the CSV's path.

    `further` goes to `json_file` beside the rows.
    """
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{name}.csv"
    pd.DataFrame(rows).to_csv(path, index=False, float_format="%.5g")
    if json_file is not None:
        content = {"torch": torch.__version__, "machine": platform.machine(), "rows": rows, **(further or {})}
        json_file.write_text(json.dumps(content, indent=2) + "\n")
    return path


def make_sample(name: str, folder: Path, *, size_px: int | None = None) -> Path:
    """A built-in sample speaker's footage of `SAMPLE_SECONDS`, made where it is not in the folder yet."""
    path = folder / f"{name}.mp4"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["sample", "--name", name, "--out", str(path.resolve()), "--seconds", str(SAMPLE_SECONDS)]
        size = [] if size_px is None else ["--size", str(size_px)]
        subprocess.run(
            [sys.executable, "-m", "gensync_core", *command, *size], cwd=source_root(), check=True, stdout=subprocess.DEVNULL
        )
    return path


class _Stopwatch:
    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def cost(self, images: int) -> Cost:
        return Cost(time.monotonic() - self._wall, time.process_time() - self._cpu, images)


def _measured(function: Callable[..., Any], *arguments: Any) -> Apart:
    torch.set_num_threads(1)
    result = function(*arguments)
    return Apart(result, peak_bytes() / (1 << 20))


def _digests(paths: SpeakerPaths) -> list[str]:
    files = (paths.clip, paths.wav, paths.masks, paths.track_arrays, paths.audio, paths.coarse)
    return [sha256_of(file) for file in files]


def _prepare(project: Project) -> None:
    """Run what is stale of everybody's stages up to coarse, some speakers at a time."""
    nodes = {speaker: dvc_project.plan(project, [f"coarse@{speaker}"], scope=speaker) for speaker in project.registry().ids()}

    def run(speaker: str) -> None:
        for node in nodes[speaker]:
            print(f"preparing: {node.address}", file=sys.stderr, flush=True)
            dvc_project.reproduce(project, node)

    with ThreadPoolExecutor(PREPARED_AT_ONCE) as pool:
        list(pool.map(run, nodes))
