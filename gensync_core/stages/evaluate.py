"""evaluate: a trained speaker and the held-out end of the clip in, figures and a report out."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from gensync_core.artefacts import sha256_of
from gensync_core.audio.features import encode
from gensync_core.audio.waveform import silence
from gensync_core.dataset.clip_dataset import ClipDataset, mouth_box
from gensync_core.errors import ArtefactBroken
from gensync_core.evaluation import contact_sheet
from gensync_core.evaluation.controls import shuffled_features
from gensync_core.evaluation.image_metrics import crop
from gensync_core.evaluation.protocol import ImageScores, Take, sync_figures
from gensync_core.evaluation.provenance import code_digest, parameter_digest
from gensync_core.evaluation.report import Apertures, ContactSheet, Evaluation, Loss, read_losses, write_report
from gensync_core.face.expression import mouth_aperture
from gensync_core.face.landmarks import FaceMesh
from gensync_core.face.regions import NUM_LANDMARKS
from gensync_core.gaussians.rasterize import Backend, choose_backend
from gensync_core.media.video import VideoWriter
from gensync_core.params import Params
from gensync_core.paths import Project, SpeakerPaths
from gensync_core.progress import Progress, progress
from gensync_core.rendering.synthesis import Avatar, RenderedFrame, load_avatar

FPS = 25
_SAMPLE_RATE_HZ = 16000
_SAMPLES_PER_FRAME = _SAMPLE_RATE_HZ // FPS
_SMALLEST_PANEL_PX = 256
_SHEET_ROWS = ("truth", "result", "truth, mouth", "result, mouth")


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Render the held-out frames from the clip's own sound and from two controls, measure, and write the report.

    Raises:
        UsageError: unknown speaker.
        ArtefactBroken: what preprocessing or training wrote is missing, damaged, or does not fit together.
    """
    speaker = project.registry().get(speaker_id)
    paths = project.speaker(speaker)
    backend = choose_backend(params.render)
    avatar = load_avatar(project.shared, paths.model, backend, params.synth.batch_frames)
    data = ClipDataset.open(paths, project.scratch / "frames", params.split)
    if avatar.resolution != data.camera.width:
        raise ArtefactBroken(
            f"{paths.model}: trained at {avatar.resolution} px, but the clip has {data.camera.width} px; train again"
        )
    frames = _held_out(data, params.evaluate.max_frames)
    project.scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=project.scratch) as folder,
        progress(f"evaluate {speaker_id}", len(frames) * (4 if params.evaluate.controls else 2)) as bar,
    ):
        trial = Trial(data, avatar, frames, params, bar)
        true = take((data.frames[index] for index in frames), bar)
        chosen = contact_sheet.spread_over_apertures(true.aperture, params.evaluate.sheet_frames)
        video = Path(folder) / "pair.mp4"
        driven, scores, tiles = trial.measure_driven(
            true, set(chosen.tolist()), video, _cut_sound(paths.wav, frames, Path(folder))
        )
        shuffled = trial.drive_shuffled() if params.evaluate.controls else None
        silent = trial.drive_silent() if params.evaluate.controls else None
        figures = scores.means() | sync_figures(
            true,
            driven,
            shuffled,
            silent,
            resolution=avatar.resolution,
            max_offset=params.evaluate.max_offset_frames,
            control_shift=trial.control_shift,
        )
        digests = _digests(project, paths, params)
        evaluation = Evaluation(
            speaker=speaker_id,
            metrics=figures
            | _measured_on(data, avatar, frames, backend)
            | {f"sha256_{name}": digest for name, digest in digests},
            facts=_facts(speaker.group, data, avatar, frames, backend),
            digests=digests,
            parameters=_sections(params),
            apertures=Apertures(
                first_frame=int(frames[0]),
                fps=FPS,
                true=true.aperture,
                driven=driven.aperture,
                shuffled=None if shuffled is None else shuffled.aperture,
                silent=None if silent is None else silent.aperture,
            ),
            losses=_losses(project, paths, speaker.group),
            sheet=_sheet(tiles, chosen, frames, true, driven),
            video=video,
        )
        write_report(paths.report, evaluation)


@dataclass(frozen=True, slots=True)
class Trial:
    """One avatar on the held-out frames of its clip; head pose and upper face are the footage's own throughout."""

    data: ClipDataset
    avatar: Avatar
    frames: np.ndarray
    params: Params
    bar: Progress

    @property
    def control_shift(self) -> int:
        """Shift of the shuffled control in frames."""
        return max(1, round(self.params.evaluate.control_shift_s * FPS))

    def measure_driven(
        self, true: Take, chosen: set[int], video: Path, sound: Path
    ) -> tuple[Take, ImageScores, dict[int, list[np.ndarray]]]:
        """Drive with the clip's own sound: landmarks, image figures, tiles of the chosen frames, and the video of both."""
        scores, tiles = ImageScores(), {}
        panel_px = self.avatar.resolution * -(-_SMALLEST_PANEL_PX // self.avatar.resolution)

        def measured() -> Iterator[np.ndarray]:
            for place, rendered in enumerate(self._render(self.data.features.numpy(), self.frames)):
                index = int(self.frames[place])
                truth, labels = self.data.frames[index], self.data.masks[index]
                landmarks_px = true.landmarks_px[place]
                scores.add(rendered.image, rendered.head_image, rendered.head_alpha, truth, labels, landmarks_px)
                if place in chosen:
                    tiles[place] = _tiles(truth, rendered.image, landmarks_px)
                writer.write(np.concatenate([contact_sheet.tile(image, panel_px) for image in (truth, rendered.image)], axis=1))
                yield rendered.image

        with VideoWriter(video, 2 * panel_px, panel_px, FPS, audio=sound) as writer:
            driven = take(measured(), self.bar)
        return driven, scores, tiles

    def drive_shuffled(self) -> Take:
        """Drive with the sound of other moments of the same segment."""
        features = shuffled_features(self.data.features.numpy(), int(self.frames[0]), len(self.frames), self.control_shift)
        return take((rendered.image for rendered in self._render(features, self.frames)), self.bar)

    def drive_silent(self) -> Take:
        """Drive with silence, through the same speech encoder."""
        features = encode(silence(len(self.frames) * _SAMPLES_PER_FRAME), self.params.audio).values
        return take((rendered.image for rendered in self._render(features, np.arange(len(self.frames)))), self.bar)

    def _render(self, features: np.ndarray, sound_frames: np.ndarray) -> Iterator[RenderedFrame]:
        poses = self.data.head_to_camera.numpy()[self.frames]
        return self.avatar.render(features, poses, self.data.upper_face.numpy()[self.frames], sound_frames)


def take(images: Iterable[np.ndarray], bar: Progress) -> Take:
    """Landmarks of consecutive frames, by a face mesh of their own so that no video sees another one's tracking."""
    landmarks = []
    with FaceMesh() as mesh:
        for image in images:
            face = mesh.detect(np.ascontiguousarray(image))
            landmarks.append(np.full((NUM_LANDMARKS, 3), np.nan, dtype=np.float32) if face is None else face.landmarks)
            bar.advance()
    landmarks_px = np.stack(landmarks)
    return Take(landmarks_px, mouth_aperture(landmarks_px))


def _held_out(data: ClipDataset, max_frames: int | None) -> np.ndarray:
    frames = np.arange(data.num_train, data.num_frames)
    if len(frames) == 0:
        raise ArtefactBroken(f"the clip has {data.num_frames} frame(s), none of which is held out; onboard longer footage")
    return frames if max_frames is None else frames[:max_frames]


def _cut_sound(wav: Path, frames: np.ndarray, folder: Path) -> Path:
    samples, rate = soundfile.read(
        wav, start=int(frames[0]) * _SAMPLES_PER_FRAME, frames=len(frames) * _SAMPLES_PER_FRAME, dtype="int16"
    )
    soundfile.write(folder / "sound.wav", samples, rate, subtype="PCM_16")
    return folder / "sound.wav"


def _tiles(truth: np.ndarray, result: np.ndarray, true_landmarks_px: np.ndarray) -> list[np.ndarray]:
    whole = [contact_sheet.tile(truth), contact_sheet.tile(result)]
    if not np.isfinite(true_landmarks_px).all():
        return [*whole, *whole]
    box = mouth_box(true_landmarks_px, truth.shape[1], truth.shape[0], margin=0.3)
    return [*whole, contact_sheet.tile(crop(truth, box)), contact_sheet.tile(crop(result, box))]


def _sheet(
    tiles: dict[int, list[np.ndarray]], chosen: np.ndarray, frames: np.ndarray, true: Take, driven: Take
) -> ContactSheet:
    captions = [f"{frames[place] / FPS:.2f} s\n{true.aperture[place]:.3f} / {driven.aperture[place]:.3f}" for place in chosen]
    rows = [[tiles[int(place)][row] for place in chosen] for row in range(len(_SHEET_ROWS))]
    return ContactSheet(image=contact_sheet.arrange(rows), rows=_SHEET_ROWS, captions=captions)


def _losses(project: Project, paths: SpeakerPaths, group: str) -> list[Loss]:
    last = ("joint", project.joint_log) if group == "cohort" else ("adapt", paths.model.with_suffix(".csv"))
    return [loss for stage, path in (("coarse", paths.coarse_log), last) for loss in read_losses(path, stage)]


def _measured_on(data: ClipDataset, avatar: Avatar, frames: np.ndarray, backend: Backend) -> dict[str, Any]:
    head, torso = len(avatar.state.head.means), len(avatar.state.torso.means)
    return {
        "frames": len(frames),
        "first_frame": int(frames[0]),
        "footage_seconds": data.num_frames / FPS,
        "resolution": avatar.resolution,
        "gaussians": head + torso,
        "gaussians_head": head,
        "gaussians_torso": torso,
        "images_seen": avatar.state.meta.get("images_seen"),
        "device": str(backend.device),
        "backend": backend.name,
    }


def _facts(group: str, data: ClipDataset, avatar: Avatar, frames: np.ndarray, backend: Backend) -> list[tuple[str, str]]:
    on = _measured_on(data, avatar, frames, backend)
    trained = "with the cohort" if group == "cohort" else "against the frozen shared network"
    return [
        ("trained", trained),
        ("held out", f"frames {frames[0]} to {frames[-1]}, {len(frames) / FPS:.2f} s of {on['footage_seconds']:.2f} s"),
        ("size", f"{on['resolution']} px, {FPS} fps"),
        ("Gaussians", f"{on['gaussians_head']} head, {on['gaussians_torso']} torso"),
        ("images seen", "unknown" if on["images_seen"] is None else str(on["images_seen"])),
        ("rendered on", f"{on['device']}, {on['backend']}"),
    ]


def _sections(params: Params) -> dict[str, dict[str, Any]]:
    plain = asdict(params)
    return {"run": {"seed": plain.pop("seed")}} | plain


def _digests(project: Project, paths: SpeakerPaths, params: Params) -> list[tuple[str, str]]:
    files = (("clip", paths.clip), ("sound", paths.wav), ("features", paths.audio), ("track", paths.track_arrays))
    models = (("shared", project.shared), ("speaker", paths.model))
    digests = [(name, sha256_of(path)) for name, path in (*files, *models)]
    return [*digests, ("parameters", parameter_digest(asdict(params))), ("code", code_digest())]
