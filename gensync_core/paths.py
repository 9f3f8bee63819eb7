"""The only owner of artefact names. Every path is below the project's root.

A speaker's folder carries the group in its path (`data/speakers/cohort/alice`), because the joint stage depends on the
whole cohort folder: DVC can neither filter a dict nor expand a list of dependencies.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from gensync_core.speakers import Registry, Speaker

COHORT_NAME = "main"


@dataclass(frozen=True, slots=True)
class SpeakerPaths:
    """Artefacts of one speaker. `folder`: preprocessing and coarse; `model`: what synthesis needs; `report`: evaluation."""

    raw: Path
    folder: Path
    model: Path
    report: Path

    @property
    def clip(self) -> Path:
        """25 fps constant, square, near-lossless H.264."""
        return self.folder / "clip.mp4"

    @property
    def wav(self) -> Path:
        """16 kHz mono, 640 samples a frame exactly."""
        return self.folder / "audio.wav"

    @property
    def clip_json(self) -> Path:
        """What was found, fixed and warned at ingestion."""
        return self.folder / "clip.json"

    @property
    def masks(self) -> Path:
        """One label id (`face.regions.Region`) per pixel, lossless FFV1 in Matroska."""
        return self.folder / "masks.mkv"

    @property
    def background(self) -> Path:
        """The background plate."""
        return self.folder / "background.png"

    @property
    def landmarks(self) -> Path:
        """Face mesh of every frame, as it was found, and how sure that is."""
        return self.folder / "landmarks.safetensors"

    @property
    def parse_json(self) -> Path:
        """Parser, share of each region, share of the plate that had to be inpainted."""
        return self.folder / "parse.json"

    @property
    def track_table(self) -> Path:
        """One row a frame: time, pose, aperture, blink, confidence."""
        return self.folder / "track.parquet"

    @property
    def track_arrays(self) -> Path:
        """Landmarks and poses as arrays."""
        return self.folder / "track.safetensors"

    @property
    def camera(self) -> Path:
        """Intrinsics in pixels of the clip."""
        return self.folder / "camera.json"

    @property
    def audio(self) -> Path:
        """Speech features at 25 fps."""
        return self.folder / "audio.safetensors"

    @property
    def coarse(self) -> Path:
        """Static head and torso Gaussians and the aligner."""
        return self.folder / "coarse.safetensors"

    @property
    def coarse_log(self) -> Path:
        """Loss curve of the coarse fit."""
        return self.folder / "coarse.csv"

    @property
    def training_log(self) -> Path:
        """Loss curves of the training that made the model; a cohort's speakers have the same."""
        return self.model.with_suffix(".csv")


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folder: `speakers.yaml`, `params.yaml`, `dvc.yaml` and the data they describe."""

    root: Path

    @property
    def params_file(self) -> Path:
        """Parameters of all stages."""
        return self.root / "params.yaml"

    @property
    def speakers_file(self) -> Path:
        """The registry of speakers."""
        return self.root / "speakers.yaml"

    @property
    def synth_file(self) -> Path:
        """Synthesis jobs: `jobs: {name: {speaker, group, audio}}`."""
        return self.root / "synth.yaml"

    @property
    def cohort_folder(self) -> Path:
        """Folders of the cohort's speakers; the joint stage depends on all of it."""
        return self.root / "data" / "speakers" / "cohort"

    @property
    def model_folder(self) -> Path:
        """The shared network and the speakers' states."""
        return self.root / "models" / COHORT_NAME

    @property
    def shared(self) -> Path:
        """Weights of the shared network."""
        return self.model_folder / "shared.safetensors"

    @property
    def shared_json(self) -> Path:
        """How the shared network was trained: cohort, steps, images seen, seconds, device, backend."""
        return self.model_folder / "shared.json"

    @property
    def finetune_file(self) -> Path:
        """Which models are to be fine-tuned: `finetuned: []`, or `[main]` once that was asked for."""
        return self.root / "finetune.yaml"

    @property
    def finetuned_folder(self) -> Path:
        """A fine-tuned model beside the one in use, laid out like it."""
        return self.root / "models" / "finetuned"

    @property
    def finetuned_shared(self) -> Path:
        """Weights of the fine-tuned shared network."""
        return self.finetuned_folder / self.shared.name

    @property
    def finetuned_scores(self) -> Path:
        """Everybody's held-out figures before and after fine-tuning."""
        return self.finetuned_folder / "scores.json"

    @property
    def gate_reports(self) -> Path:
        """What the footage gate found in files that were given to it; may be deleted at any time."""
        return self.root / ".gensync" / "gate"

    @property
    def scratch(self) -> Path:
        """Resume states and decoded frames: never versioned, may be deleted at any time."""
        return self.root / ".gensync" / "scratch"

    def raw(self, speaker_id: str, suffix: str) -> Path:
        """Where footage is copied to; `suffix` with its dot."""
        return self.root / "data" / "raw" / f"{speaker_id}{suffix.lower()}"

    def speech(self, name: str) -> Path:
        """Where speech to synthesise from is copied to."""
        return self.root / "data" / "speech" / name

    def render(self, job: str) -> Path:
        """The video of one synthesis job."""
        return self.root / "renders" / f"{job}.mp4"

    def registry(self) -> Registry:
        """Read `speakers.yaml`."""
        return Registry.load(self.speakers_file)

    def speaker(self, speaker: Speaker) -> SpeakerPaths:
        """Artefacts of a speaker."""
        return SpeakerPaths(
            raw=self.root / speaker.raw,
            folder=self.root / "data" / "speakers" / speaker.group / speaker.id,
            model=self.model_folder / speaker.group / f"{speaker.id}.safetensors",
            report=self.root / "reports" / speaker.id,
        )

    def finetuned(self, speaker: Speaker) -> SpeakerPaths:
        """The same with the speaker's state in the fine-tuned model."""
        paths = self.speaker(speaker)
        return replace(paths, model=self.finetuned_folder / speaker.group / paths.model.name)
