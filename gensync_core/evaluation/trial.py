"""An avatar put to the test: held-out frames rendered from the clip's own sound and from two controls."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from gensync_core.audio.audio_params import AudioParams
from gensync_core.audio.features import encode
from gensync_core.audio.waveform import FPS, SAMPLES_PER_FRAME, silence
from gensync_core.dataset.clip_dataset import ClipDataset, mouth_box
from gensync_core.evaluation import contact_sheet
from gensync_core.evaluation.attention_map import attention_sheet
from gensync_core.evaluation.controls import shuffled_features
from gensync_core.evaluation.evaluate_params import EvaluateParams
from gensync_core.evaluation.image_metrics import crop
from gensync_core.evaluation.lip_motion import lip_openings
from gensync_core.evaluation.lip_sync import movement_ratio
from gensync_core.evaluation.protocol import ImageScores, Take, sync_figures
from gensync_core.evaluation.report import Apertures, ContactSheet
from gensync_core.face.expression import mouth_aperture
from gensync_core.face.landmarks import follow_face
from gensync_core.losses.lpips import Lpips
from gensync_core.losses.lpips_weights import load_lpips
from gensync_core.media.video import VideoWriter
from gensync_core.progress import Progress
from gensync_core.rendering.synthesis import Avatar, RenderedFrame

_SMALLEST_PANEL_PX = 256
_SHEET_ROWS = ("truth", "result", "truth, mouth", "result, mouth")
_SHEET_MOUTH_MARGIN = 0.3


class Outcome(NamedTuple):
    """What a trial found: figures, mouth openings, contact sheet, the map of attention where there is one.

    The video lies where it was asked for.
    """

    figures: dict[str, float | int | None]
    apertures: Apertures
    sheet: ContactSheet
    attention: ContactSheet | None


@dataclass(frozen=True, slots=True)
class Trial:
    """One avatar on held-out frames of its clip; head pose and upper face are the footage's own throughout.

    Attributes:
        frames: indices of the held-out frames, consecutive.
        bar: advanced once for every frame that is looked at, see `num_looks`.
    """

    data: ClipDataset
    avatar: Avatar
    frames: np.ndarray
    params: EvaluateParams
    audio: AudioParams
    bar: Progress

    @staticmethod
    def num_looks(num_frames: int, params: EvaluateParams) -> int:
        """Frames that a trial of `num_frames` looks at: true, driven, and both controls."""
        return num_frames * (4 if params.controls else 2)

    def run(self, wav: Path, video: Path) -> Outcome:
        """Measure everything; truth and result side by side with the sound of `wav` (the whole clip's) go to `video`.

        Raises:
            AssetMissing: LPIPS is asked for and its weights are not to be had.
        """
        lpips = load_lpips(self.avatar.backend.device) if self.params.lpips else None
        true = take((self.data.frames[int(index)] for index in self.frames), self.bar)
        chosen = contact_sheet.spread_over_apertures(true.aperture, self.params.sheet_frames)
        driven, scores, tiles = self._drive(true, set(chosen.tolist()), wav, video, lpips)
        shuffled = self._drive_shuffled() if self.params.controls else None
        silent, lips_in_silence = self._drive_silent() if self.params.controls else (None, None)
        sync = sync_figures(
            true,
            driven,
            shuffled,
            silent,
            lips_in_silence,
            resolution=self.avatar.resolution,
            max_offset=self.params.max_offset_frames,
            control_shift=self._control_shift,
        )
        apertures = Apertures(
            first_frame=int(self.frames[0]),
            fps=FPS,
            true=true.aperture,
            driven=driven.aperture,
            shuffled=None if shuffled is None else shuffled.aperture,
            silent=None if silent is None else silent.aperture,
        )
        rows = [[tiles[place][row] for place in chosen.tolist()] for row in range(len(_SHEET_ROWS))]
        captions = [
            f"{self.frames[place] / FPS:.2f} s\n{_opening(true, place)} / {_opening(driven, place)}"
            for place in chosen.tolist()
        ]
        sheet = ContactSheet(image=contact_sheet.arrange(rows), rows=_SHEET_ROWS, captions=captions)
        return Outcome(scores.means() | sync, apertures, sheet, self._attention(self.frames[chosen]))

    @property
    def _control_shift(self) -> int:
        return max(1, round(self.params.control_shift_s * FPS))

    def _drive(
        self, true: Take, chosen: set[int], wav: Path, video: Path, lpips: Lpips | None
    ) -> tuple[Take, ImageScores, dict[int, list[np.ndarray]]]:
        """The clip's own sound: landmarks, image figures, tiles of the chosen frames, and the video of both."""
        scores, tiles = ImageScores(lpips), {}
        panel_px = self.avatar.resolution * -(-_SMALLEST_PANEL_PX // self.avatar.resolution)

        def measured(writer: VideoWriter) -> Iterator[np.ndarray]:
            for place, rendered in enumerate(self._render(self.data.features.numpy(), self.frames)):
                index = int(self.frames[place])
                truth, labels = self.data.frames[index], self.data.masks[index]
                landmarks_px = true.landmarks_px[place]
                scores.add(rendered.image, rendered.head_image, rendered.head_alpha, truth, labels, landmarks_px)
                if place in chosen:
                    tiles[place] = _tiles(truth, rendered.image, landmarks_px)
                panels = [contact_sheet.tile(image, panel_px) for image in (truth, rendered.image)]
                writer.write(np.concatenate(panels, axis=1))
                yield rendered.image

        sound = _cut_sound(wav, self.frames, video.with_suffix(".wav"))
        with VideoWriter(video, 2 * panel_px, panel_px, FPS, audio=sound) as writer:
            driven = take(measured(writer), self.bar)
        return driven, scores, tiles

    def _drive_shuffled(self) -> Take:
        """Sound of other moments of the same segment."""
        features = shuffled_features(self.data.features.numpy(), int(self.frames[0]), len(self.frames), self._control_shift)
        return take((rendered.image for rendered in self._render(features, self.frames)), self.bar)

    def _drive_silent(self) -> tuple[Take, float]:
        """Silence, through the same speech encoder; and how much the lips themselves move in it, see `_lips_in_silence`."""
        features = encode(silence(len(self.frames) * SAMPLES_PER_FRAME), self.audio).values
        images = (rendered.image for rendered in self._render(features, np.arange(len(self.frames))))
        return take(images, self.bar), self._lips_in_silence(features)

    def _lips_in_silence(self, features: np.ndarray) -> float:
        """Movement of the lips' opening in the canonical frame with silence, over that with the clip's sound."""
        motion = self.data.motion.take(self.frames)
        openings = [
            lip_openings(self.avatar, self.data.canonical_landmarks, torch.from_numpy(sound), frames, motion)
            for sound, frames in ((features, np.arange(len(self.frames))), (self.data.features.numpy(), self.frames))
        ]
        return movement_ratio(*openings)

    def _attention(self, frames: np.ndarray) -> ContactSheet | None:
        return attention_sheet(self.avatar, self.data.features, frames, self.data.motion.take(frames))

    def _render(self, features: np.ndarray, sound_frames: np.ndarray) -> Iterator[RenderedFrame]:
        return self.avatar.render(features, self.data.motion.take(self.frames), sound_frames)


def take(images: Iterable[np.ndarray], bar: Progress) -> Take:
    """Landmarks of consecutive frames, and how far the mouth is open."""
    landmarks_px = follow_face(images, bar.advance).landmarks_px
    return Take(landmarks_px, mouth_aperture(landmarks_px))


def _cut_sound(wav: Path, frames: np.ndarray, target: Path) -> Path:
    start, count = int(frames[0]) * SAMPLES_PER_FRAME, len(frames) * SAMPLES_PER_FRAME
    samples, rate = soundfile.read(wav, start=start, frames=count, dtype="int16")
    soundfile.write(target, samples, rate, subtype="PCM_16")
    return target


def _tiles(truth: np.ndarray, result: np.ndarray, true_landmarks_px: np.ndarray) -> list[np.ndarray]:
    whole = [contact_sheet.tile(truth), contact_sheet.tile(result)]
    if not np.isfinite(true_landmarks_px).all():
        return [*whole, *whole]
    box = mouth_box(true_landmarks_px, truth.shape[1], truth.shape[0], _SHEET_MOUTH_MARGIN)
    return [*whole, contact_sheet.tile(crop(truth, box)), contact_sheet.tile(crop(result, box))]


def _opening(video: Take, place: int) -> str:
    aperture = float(video.aperture[place])
    return f"{aperture:.3f}" if np.isfinite(aperture) else "no face"
