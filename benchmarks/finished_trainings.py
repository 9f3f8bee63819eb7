"""Trainings in processes of their own; one that is finished and scored is kept, so that a killed benchmark goes on.

What is kept lies in the laboratory, under a digest of all that it depends on: code, parameters, the speakers' prepared files,
schedule, seed, and the training whose network is adapted to.
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from laboratory import Cost, Laboratory
from process_memory import peak_bytes

from gensync_core.artefacts import read_json, write_json
from gensync_core.audio.waveform import FPS
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.model.gensync import GenSync
from gensync_core.progress import Tick, use_sink
from gensync_core.training.schedules import FitParams

_TOLD_EVERY_S = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What is to be trained.

    Attributes:
        speakers: trained together.
        steps: of the schedule for heads; torsos get more or fewer in proportion, see `schedule`.
        seed: of everything random.
        seconds: so much of each clip is trained on at most; None: all that is not held out.
        base: the speaker is adapted to this training's network, which must be `kept`; None: the network is trained, too.
        kept: whether the network is kept, to be adapted to; nobody is scored then.
    """

    speakers: tuple[str, ...]
    steps: int
    seed: int
    seconds: float | None = None
    base: "Training | None" = None
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A training, what it cost, the most memory of its process, and each speaker's held-out figures."""

    training: Training
    cost: Cost
    peak_mb: float
    figures: dict[str, dict[str, float | None]]


class Archive:
    """Finished trainings of a laboratory."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory = laboratory
        self._folder = laboratory.project.root / ".gensync" / "trainings"

    def finish(self, trainings: Iterable[Training]) -> list[Finished]:
        """All of them, in their order, one at a time; those that are there already take no time."""
        wanted = list(trainings)
        done = []
        for number, training in enumerate(wanted, 1):
            start, known = time.monotonic(), self._record(training).exists()
            finished = self.get(training)
            spent = "there already" if known else f"{time.monotonic() - start:.0f} s with scoring"
            print(f"[{number}/{len(wanted)}] {_described(training)}: {spent}", file=sys.stderr, flush=True)
            done.append(finished)
        return done

    def get(self, training: Training) -> Finished:
        """One of them, from the archive or trained now."""
        record = self._record(training)
        if not record.exists():
            if training.base is not None:
                self.get(training.base)
            base = None if training.base is None else self._network(training.base)
            keep = self._network(training) if training.kept else None
            content = self.laboratory.run_apart(train_and_score, self.laboratory, training, base, keep).result
            write_json(record, {**content, "training": asdict(training)})
        content = read_json(record)
        return Finished(training, Cost(**content["cost"]), content["peak_mb"], content["figures"])

    def key(self, training: Training) -> str:
        """Digest of all that a training's outcome depends on."""
        speakers = {speaker for part in (training, training.base) if part is not None for speaker in part.speakers}
        return self.laboratory.digest(speakers, training)

    def _record(self, training: Training) -> Path:
        return self._folder / f"{self.key(training)}.json"

    def _network(self, training: Training) -> Path:
        return self._folder / f"{self.key(training)}.safetensors"


def schedule(standard: FitParams, steps: int) -> dict[str, int]:
    """Steps on heads, and on torsos in the proportion of `standard`."""
    return {"steps": steps, "torso_steps": round(steps * standard.torso_steps / standard.steps)}


def train_and_score(laboratory: Laboratory, training: Training, base: Path | None, keep: Path | None) -> dict[str, Any]:
    """Carry a training out in this process: cost, peak memory and figures as plain values.

    Args:
        laboratory: with the speakers.
        training: what to do.
        base: file of the network to adapt to; None: one is trained.
        keep: where the trained network goes; None: nowhere.
    """
    params = laboratory.params
    laboratory = replace(laboratory, backend=choose_backend(params.render)).with_params(
        {name: schedule(getattr(params, name), training.steps) for name in ("joint", "adapt")}
    )
    laboratory.rehearse(training.speakers[0])
    use_sink(_Told(_described(training)))
    clips = {speaker: _shortened(laboratory.clip(speaker), training.seconds) for speaker in training.speakers}
    if base is None:
        trained = laboratory.train(training.speakers, seed=training.seed, clips=clips)
    else:
        (speaker,) = training.speakers
        network, _ = GenSync.load(base, laboratory.backend.device)
        trained = laboratory.adapt(speaker, network, seed=training.seed, clip=clips[speaker])
    peak_mb = peak_bytes() / (1 << 20)
    if keep is not None:
        trained.network.save(keep, {})
    figures = {} if training.kept else {speaker: laboratory.score(trained, speaker) for speaker in training.speakers}
    return {"cost": trained.cost._asdict(), "peak_mb": peak_mb, "figures": figures}


def _shortened(clip: ClipDataset, seconds: float | None) -> ClipDataset:
    return clip if seconds is None else replace(clip, num_train=min(clip.num_train, round(seconds * FPS)))


def _described(training: Training) -> str:
    manner = "trained" if training.base is None else "adapted"
    return f"{'+'.join(training.speakers)} {manner}, {training.steps} steps, seed {training.seed}"


class _Told:
    """A sink of progress that says now and then how far a training is."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, time.monotonic()

    def __call__(self, tick: Tick) -> None:
        if time.monotonic() - self._last >= _TOLD_EVERY_S:
            self._last = time.monotonic()
            print(f"  {self._name}: {tick.job} {tick.done}/{tick.total} {tick.note}", file=sys.stderr, flush=True)
