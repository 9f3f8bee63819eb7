"""Which features carry speech content to voices and languages that were never heard, and what else limits that?

    python benchmarks/audio_features.py [--work DIR] [--clips FILE ...] [--only NAME ...] [--limits] [--steps 600] [--seed 0]
                                        [--multilingual FOLDER] [--results DIR] [--json FILE]

For every candidate the field learns landmark motion alone (`landmark_training`): once from all speakers, and once without
each of them. Pearson r of lip openings with tracked mouth openings, each minus the same with shuffled sound:

- own: a speaker's avatar and held-out speech of its own;
- cross: the avatar driven by held-out speech of another speaker of the cohort;
- unheard: the avatar driven by the whole clip of the speaker who was left out, a voice and often a language never heard;
- ridge own, ridge unheard: ridge regression from the same features to the mouth opening, 4 frames to either side, on 96
  principal components of a frame: the floor.

`--limits` keeps the features of `params.yaml` and changes the training instead. `--multilingual` takes a folder with
Whisper tiny as transformers load it (`whisper_onnx.py` makes one from an int8 ONNX encoder). A training that was measured
is not done again while code and parameters stay the same; features stay until `audio_features` in the laboratory's scratch
folder is deleted. Results: audio_features.csv (audio_limits.csv), a PNG beside it.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import laboratory
import matplotlib as mpl
import numpy as np
import torch
from altered_voice import altered, draw_alteration, on_original_frames
from laboratory import Laboratory, Overrides
from landmark_training import Student, train_on_landmarks

from gensync_core.artefacts import atomic_path, sha256_of
from gensync_core.assets import WHISPER_TINY_EN
from gensync_core.audio.audio_params import AudioParams
from gensync_core.audio.features import LOG_MEL, encode
from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME, load_waveform, silence
from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.evaluation.controls import shuffled_features
from gensync_core.evaluation.cross_driving import Following, following_of_lips
from gensync_core.evaluation.lip_sync import aperture_correlation
from gensync_core.evaluation.provenance import code_digest, parameter_digest
from gensync_core.rendering.synthesis import Avatar

SILENT_FRAMES = 30 * FPS
NUM_ALTERED = 6
RIDGE_COMPONENTS, RIDGE_REACH, RIDGE_PENALTY = 96, 4, 3.0
MEASURES = ("own", "cross", "unheard", "ridge own", "ridge unheard")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Features, and under which parameters the field learns from them.

    Attributes:
        layers: hidden states that stand beside each other.
        taken_off: of each voice's features: nothing | mean | deviation (mean off, then divided by the deviation).
        num_altered: altered copies of the training sound that are heard besides it.
    """

    name: str
    encoder: str = WHISPER_TINY_EN
    layers: tuple[int, ...] = (0,)
    taken_off: str = "nothing"
    num_altered: int = 0
    overrides: Overrides = field(default_factory=dict)


def feature_candidates(multilingual: Path | None) -> list[Candidate]:
    whisper = [Candidate(f"layer {layer}", layers=(layer,)) for layer in (3, 2, 1, 0)]
    whisper += [Candidate("final (4, after the norm)", layers=(4,))]
    whisper += [Candidate(f"layers {a} + {b}", layers=(a, b)) for a, b in ((2, 3), (1, 2))]
    for layer in (3, 2):
        whisper += [
            Candidate(f"layer {layer}, voice's mean off", layers=(layer,), taken_off="mean"),
            Candidate(f"layer {layer}, voice standardised", layers=(layer,), taken_off="deviation"),
            Candidate(f"layer {layer}, altered voices", layers=(layer,), num_altered=NUM_ALTERED),
        ]
    mel = [
        Candidate("log-mel", encoder=LOG_MEL),
        Candidate("log-mel, voice standardised", encoder=LOG_MEL, taken_off="deviation"),
        Candidate("log-mel, both", encoder=LOG_MEL, taken_off="deviation", num_altered=NUM_ALTERED),
    ]
    if multilingual is None:
        print("multilingual Whisper: not measured here, there is no --multilingual FOLDER")
        return whisper + mel
    return whisper + mel + [Candidate(f"multilingual {layer}", str(multilingual.resolve()), (layer,)) for layer in (2, 3, 4)]


def limit_candidates(audio: AudioParams) -> list[Candidate]:
    """One change of model, losses or schedule each."""
    changes: dict[str, Overrides] = {
        "as it is": {},
        "feature noise 0.5": {"joint": {"feature_noise": 0.5}},
        "feature noise 3": {"joint": {"feature_noise": 3.0}},
        "weight decay 4": {"joint": {"weight_decay": 4.0}},
        "span of 7 frames": {"model": {"window_size": 4}},
        "span of 15 frames": {"model": {"window_size": 12}},
        "audio code of 16": {"model": {"audio_size": 16}},
        "no confusion": {"loss": {"confusion": 0.0}},
        "confusion 0.03": {"loss": {"confusion": 0.03}},
        "no swap": {"loss": {"swap": 0.0}},
        "swap 1": {"loss": {"swap": 1.0}},
        "identity not fused": {"model": {"fusion": "none"}},
        "half of the pairs": {"joint": {"motion_pairs": 8}},
    }
    return [Candidate(name, audio.encoder, (audio.layer,), overrides=change) for name, change in changes.items()]


class Hearing(NamedTuple):
    """Features of a clip's sound, of its altered copies, and of silence."""

    original: torch.Tensor
    copies: list[torch.Tensor]
    silence: torch.Tensor


class FeatureStore:
    """Features of the laboratory's speakers; whatever was encoded stays on disk."""

    def __init__(self, lab: Laboratory) -> None:
        self._lab, self._folder = lab, lab.project.scratch / "audio_features"

    def hearing(self, speaker: str, candidate: Candidate) -> Hearing:
        original, *copies = (self._clip(speaker, candidate, copy) for copy in range(1 + candidate.num_altered))
        quiet = self._joined(candidate, "silence", lambda layer: self._encode(silence_of(SILENT_FRAMES), candidate, layer))
        return Hearing(
            _without_voice(original, original, candidate.taken_off),
            [_without_voice(copy, copy, candidate.taken_off) for copy in copies],
            _without_voice(quiet, original, candidate.taken_off),
        )

    def _clip(self, speaker: str, candidate: Candidate, copy: int) -> torch.Tensor:
        wav = self._lab.paths(speaker).wav

        def encoded(layer: int) -> np.ndarray:
            samples = load_waveform(wav)
            if copy == 0:
                return self._encode(samples, candidate, layer)
            rng = np.random.default_rng([copy, *speaker.encode()])
            alteration = draw_alteration(rng)
            features = self._encode(altered(samples, alteration, rng), candidate, layer)
            return on_original_frames(features, alteration.speed_percent, self._lab.clip(speaker).num_frames)

        return self._joined(candidate, f"{sha256_of(wav)[:16]}-{copy}", encoded)

    def _joined(self, candidate: Candidate, sound: str, encoded: Callable[[int], np.ndarray]) -> torch.Tensor:
        parts = []
        for layer in candidate.layers:
            path = self._folder / f"{sound}-{Path(candidate.encoder).name}-{layer}.npy"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                features = encoded(layer)
                with atomic_path(path) as temporary:
                    np.save(temporary, features)
            parts.append(np.load(path))
        return torch.from_numpy(np.concatenate(parts, axis=1))

    @staticmethod
    def _encode(samples: np.ndarray, candidate: Candidate, layer: int) -> np.ndarray:
        return encode(samples, AudioParams(encoder=candidate.encoder, layer=layer, allow_log_mel_fallback=False)).values


def silence_of(num_frames: int) -> np.ndarray:
    return silence(num_frames * SAMPLES_PER_FRAME)


def _without_voice(features: torch.Tensor, voice: torch.Tensor, taken_off: str) -> torch.Tensor:
    if taken_off == "nothing":
        return features
    features = features - voice.mean(0)
    return features if taken_off == "mean" else features / voice.std(0).clamp_min(1e-4)


def measure(lab: Laboratory, candidate: Candidate, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of one candidate: measure, face, voice, r, r_shuffled."""
    lab = lab.with_params(candidate.overrides)
    store, shift = FeatureStore(lab), round(lab.params.evaluate.control_shift_s * FPS)
    heard = {speaker: store.hearing(speaker, candidate) for speaker in lab.speakers}
    clips = {
        speaker: replace(lab.clip(speaker), features=heard[speaker].original, silence=heard[speaker].silence)
        for speaker in lab.speakers
    }

    def row(kind: str, face: str, voice: str, following: Following) -> dict[str, Any]:
        return {"candidate": candidate.name, "measure": kind, "face": face, "voice": voice, **following._asdict()}

    for left_out in (None, *lab.speakers):
        students = {
            speaker: Student(clips[speaker], lab.coarse(speaker), heard[speaker].copies)
            for speaker in lab.speakers
            if speaker != left_out
        }
        network = train_on_landmarks(list(students.values()), lab.params, seed)
        for face, student in students.items():
            avatar = Avatar(network, student.state, lab.backend)
            for voice in clips if left_out is None else [left_out]:
                clip = clips[voice]
                frames = np.arange(clip.num_train if left_out is None else 0, clip.num_frames)
                kind = "unheard" if left_out else "own" if face == voice else "cross"
                yield row(kind, face, voice, following_of_lips(avatar, student.data.canonical_landmarks, clip, frames, shift))
    for voice in lab.speakers:
        clip = clips[voice]
        frames = np.arange(clip.num_train, clip.num_frames)
        yield row("ridge own", voice, voice, ridge_following([clip], clip, frames, shift))
        others = [clips[speaker] for speaker in lab.speakers if speaker != voice]
        yield row("ridge unheard", "", voice, ridge_following(others, clip, np.arange(clip.num_frames), shift, whole=True))


def ridge_following(
    teachers: Sequence[ClipDataset], voice: ClipDataset, frames: np.ndarray, shift: int, *, whole: bool = False
) -> Following:
    """A ridge regression instead of an avatar; it learns from the teachers' training frames, or from `whole` clips."""
    spans = [slice(0, clip.num_frames if whole else clip.num_train) for clip in teachers]
    plain = np.concatenate([clip.features.numpy()[span] for clip, span in zip(teachers, spans, strict=True)])
    mean, std = plain.mean(0), np.maximum(plain.std(0), 1e-4)
    _, axes = np.linalg.eigh(np.cov((plain - mean).T / std[:, None]))
    axes = axes[:, -RIDGE_COMPONENTS:]

    def inputs(features: np.ndarray) -> np.ndarray:
        near = np.pad((features - mean) / std @ axes, ((RIDGE_REACH, RIDGE_REACH), (0, 0)), mode="edge")
        return np.concatenate([near[start : start + len(features)] for start in range(2 * RIDGE_REACH + 1)], axis=1)

    x = np.concatenate([inputs(clip.features.numpy())[span] for clip, span in zip(teachers, spans, strict=True)])
    y = np.concatenate([_unit(clip.aperture[span]) for clip, span in zip(teachers, spans, strict=True)])
    centre = x.mean(0)
    gram = (x - centre).T @ (x - centre) + RIDGE_PENALTY * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, (x - centre).T @ y)
    real = voice.features.numpy()
    shuffled = shuffled_features(real, int(frames[0]), len(frames), shift)
    true = voice.aperture[frames]
    return Following(*(aperture_correlation(true, (inputs(sound) @ weights)[frames]) for sound in (real, shuffled)))


def _unit(curve: np.ndarray) -> np.ndarray:
    """Speakers open their mouths more and less: each counts alike. Frames without a face count as the mean."""
    return np.nan_to_num((curve - np.nanmean(curve)) / np.nanstd(curve))


def measured_once(lab: Laboratory, candidate: Candidate, seed: int) -> list[dict[str, Any]]:
    """The rows of `measure`, from disk where they are there."""
    params = lab.with_params(candidate.overrides).params
    clips = [sha256_of(lab.paths(speaker).wav) for speaker in lab.speakers]
    key = {
        "candidate": asdict(candidate),
        "params": [params.model, params.joint, params.loss, params.evaluate],
        "seed": seed,
        "clips": clips,
    }
    path = lab.project.scratch / "audio_features" / f"{parameter_digest({**key, 'code': code_digest()})[:24]}.json"
    if not path.exists():
        rows = list(measure(lab, candidate, seed))
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(rows))
    return json.loads(path.read_text())


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of one candidate: r and real minus shuffled of each measure."""
    means: dict[str, Any] = {"candidate": rows[0]["candidate"]}
    for kind in MEASURES:
        chosen = [(row["r"], row["r"] - row["r_shuffled"]) for row in rows if row["measure"] == kind]
        if chosen:
            means[f"{kind} r"], means[f"{kind} gap"] = (float(value) for value in np.mean(chosen, axis=0))
    return means


COLUMNS = [("candidate", "candidate", "s")] + [
    (f"{kind} {part}", f"{kind} {part}", ".3f") for kind in MEASURES for part in ("r", "gap")
]


def plot(path: Path, means: Sequence[Mapping[str, Any]]) -> None:
    """Bars of real minus shuffled, one group a candidate."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1 + 0.45 * len(means)))
    places = np.arange(len(means))[::-1]
    for number, kind in enumerate(MEASURES[:3]):
        axes.barh(places + 0.27 * (1 - number), [row.get(f"{kind} gap", np.nan) for row in means], 0.25, label=kind)
    floors = [row.get("ridge unheard gap", np.nan) for row in means]
    axes.plot(floors, places - 0.27, "k|", markersize=10, label="unheard, ridge")
    axes.set_yticks(places, [row["candidate"] for row in means])
    axes.set_xlabel("r of lip opening, real minus shuffled")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    laboratory.add_arguments(parser, size_px=128)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="candidates by name, as the table shows them")
    parser.add_argument("--limits", action="store_true", help="change the training instead of the features")
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--multilingual", type=Path, metavar="FOLDER", help="Whisper tiny as transformers load it")
    parser.add_argument("--results", type=Path, default=laboratory.RESULTS, help="folder of CSV and PNG")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lab = Laboratory.open(arguments.work, arguments.clips, {"ingest": {"resolution": arguments.size}})
    lab = lab.with_params({"joint": {"steps": arguments.steps}})
    candidates = limit_candidates(lab.params.audio) if arguments.limits else feature_candidates(arguments.multilingual)
    unknown = set(arguments.only) - {candidate.name for candidate in candidates}
    if unknown:
        parser.error(f"no candidate is named {', '.join(sorted(unknown))}: {', '.join(c.name for c in candidates)}")
    rows: list[dict[str, Any]] = []
    for candidate in [one for one in candidates if not arguments.only or one.name in arguments.only]:
        rows += measured_once(lab, candidate, arguments.seed)
        print(laboratory.table([summary(rows_of(rows, candidate.name))], COLUMNS), flush=True)
    means = [summary(rows_of(rows, name)) for name in dict.fromkeys(row["candidate"] for row in rows)]
    print("\n" + laboratory.table(means, COLUMNS))
    name = "audio_limits" if arguments.limits else "audio_features"
    csv = laboratory.write_results(name, rows, arguments.json, arguments.results)
    plot(csv.with_suffix(".png"), means)


def rows_of(rows: list[dict[str, Any]], candidate: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["candidate"] == candidate]


if __name__ == "__main__":
    main()
