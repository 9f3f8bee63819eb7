"""A trained avatar: features of speech in, a stream of frames out."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from gensync_core.gaussians.rasterize import Backend
from gensync_core.geometry.motion import Motion
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.rendering.code_stream import stream_codes
from gensync_core.rendering.compositor import render_layer
from gensync_core.rendering.deformation import Conditions, Field, FullField, PosedSpeaker
from gensync_core.rendering.fast_field import NUM_HELD_OUT, NUM_SAMPLES, fit_fast_field, output_errors, sample_conditions
from gensync_core.rendering.picture import picture

MIN_PSNR_DB = 40.0
"""Least likeness of a fast frame to the full one on held-out frames; below it nothing is rendered fast."""

_LOGGER = logging.getLogger(__name__)
_PAYS_FROM_FRAMES = NUM_SAMPLES + 2 * NUM_HELD_OUT
_SAME_PSNR_DB = 99.0


class RenderedFrame(NamedTuple):
    """The finished frame (sRGB bytes), and the head alone: premultiplied colour and coverage, 0..1."""

    image: UInt8[np.ndarray, "H W 3"]
    head_image: Float[np.ndarray, "H W 3"]
    head_alpha: Float[np.ndarray, "H W"]


class Likeness(NamedTuple):
    """How near fast frames come to full ones, on held-out frames of this speaker.

    Attributes:
        psnr_min, psnr_mean: of the finished frames, in dB; 99 where they are equal.
        error_max, error_mean: of what head and torso field put out, in units of the outputs.
        seconds: what finding the bases and measuring took.
    """

    psnr_min: float
    psnr_mean: float
    error_max: float
    error_mean: float
    seconds: float


class Quickening(NamedTuple):
    """What came of `Avatar.quicken`: the mode (full | fast) that renders now, why, and the likeness where it was measured."""

    mode: str
    reason: str
    likeness: Likeness | None


class Avatar:
    """One speaker with the shared network, ready to render; in full mode until `quicken`.

    Attributes:
        field: what deforms the Gaussians; its `mode` is full or fast.
    """

    def __init__(self, network: GenSync, state: SpeakerState, backend: Backend, batch_frames: int = 32) -> None:
        self.network, self.state, self.backend, self.batch_frames = network.eval(), state, backend, batch_frames
        self.field: Field = FullField(network, state)

    @property
    def num_frames(self) -> int:
        """Frames of the take of head motion that the avatar carries."""
        return len(self.state.take.head_to_camera)

    @property
    def resolution(self) -> int:
        """Width = height of a frame in px."""
        return self.state.camera.width

    def render(
        self,
        features: Float[np.ndarray, "T D"],
        motion: Motion,
        frames: Sequence[int] | np.ndarray,
    ) -> Iterator[RenderedFrame]:
        """Render one frame for each entry of `frames` (indices into `features`), one at a time in constant memory."""
        yield from _without_gradients(self._render_clip(features, motion, frames))

    def _render_clip(self, features: np.ndarray, motion: Motion, frames: Sequence[int] | np.ndarray) -> Iterator[RenderedFrame]:
        speech = self._tensor(features)
        index = torch.as_tensor(np.asarray(frames), dtype=torch.long, device=speech.device)
        motion = motion.to(speech.device)
        for start in range(0, len(index), self.batch_frames):
            some = slice(start, start + self.batch_frames)
            codes = self.network.encode_audio(speech, index[some])
            yield from self._render(Conditions(codes, motion.take(some)))

    def stream(self, feature_blocks: Iterable[Float[np.ndarray, "_ D"]]) -> Iterator[RenderedFrame]:
        """Render speech of any length whose features come in blocks, with the speaker's own head motion.

        The take of head motion is played forwards and backwards without a jump. Memory does not grow.
        """
        yield from _without_gradients(self._render_stream(feature_blocks))

    def _render_stream(self, feature_blocks: Iterable[np.ndarray]) -> Iterator[RenderedFrame]:
        frame = 0
        for codes in stream_codes(self.network, feature_blocks, self.batch_frames):
            played = torch.as_tensor(ping_pong(self.num_frames, len(codes), frame), device=codes.device)
            yield from self._render(Conditions(codes, self.state.take.take(played)))
            frame += len(codes)

    @torch.no_grad()
    def quicken(self, features: Float[np.ndarray, "T D"], num_frames: int | None = None) -> Quickening:
        """Render by bases (fast mode) from now on, if they are good enough; says so in the log.

        Args:
            features: of speech like that which is to be spoken, some ten seconds or more; better of that speech itself.
            num_frames: so many frames are to be rendered: for few of them it does not pay. None: many.
        """
        if num_frames is not None and num_frames <= _PAYS_FROM_FRAMES:
            return self._stay_full(f"{num_frames} frames are too few to pay for finding bases", None)
        start = time.monotonic()
        speech = self._tensor(features)
        codes = self.network.encode_audio(speech, torch.arange(len(speech), device=speech.device))
        generator = torch.Generator().manual_seed(0)
        samples = sample_conditions(self.state, codes, generator)
        fast = fit_fast_field(self.network, self.state, samples.take(slice(NUM_SAMPLES)), generator)
        likeness = self._compare(fast, samples.take(slice(NUM_SAMPLES, None)), start)
        if likeness.psnr_min < MIN_PSNR_DB:
            reason = f"fast frames come only as near as {likeness.psnr_min:.1f} dB, at least {MIN_PSNR_DB:.0f} dB are wanted"
            return self._stay_full(reason, likeness)
        self.field = fast
        _LOGGER.info(
            "rendering in fast mode: %.1f dB (at least %.1f dB) from full frames, bases found in %.1f s",
            likeness.psnr_mean,
            likeness.psnr_min,
            likeness.seconds,
        )
        return Quickening("fast", "", likeness)

    def _stay_full(self, reason: str, likeness: Likeness | None) -> Quickening:
        self.field = FullField(self.network, self.state)
        _LOGGER.info("rendering in full mode: %s", reason)
        return Quickening("full", reason, likeness)

    def _compare(self, fast: Field, held_out: Conditions, start: float) -> Likeness:
        full = FullField(self.network, self.state)
        psnr, errors = [], []
        pairs = zip(full.pose(held_out), fast.pose(held_out), *held_out.motion[:2], strict=True)
        for one, other, *poses in pairs:
            difference = self._frame(one, *poses).image.astype(np.float32) - self._frame(other, *poses).image
            mse = float(np.square(difference).mean())
            psnr.append(_SAME_PSNR_DB if mse == 0 else 10 * np.log10(255**2 / mse))
            error = output_errors(self.network, self.state, one, other)
            errors.append((error.max().item(), error.mean().item()))
        worst, mean = np.max(errors, axis=0)[0], np.mean(errors, axis=0)[1]
        return Likeness(float(min(psnr)), float(np.mean(psnr)), float(worst), float(mean), time.monotonic() - start)

    def _render(self, conditions: Conditions) -> Iterator[RenderedFrame]:
        for posed, *poses in zip(self.field.pose(conditions), *conditions.motion[:2], strict=True):
            yield self._frame(posed, *poses)

    def _frame(self, posed: PosedSpeaker, head_to_camera: torch.Tensor, body_to_camera: torch.Tensor) -> RenderedFrame:
        camera = self.state.camera
        head = render_layer(posed.head, head_to_camera, camera, self.backend)
        torso = render_layer(posed.torso, body_to_camera, camera, self.backend)
        image = picture(head, torso, self.state.plate, self.backend.threads)
        return RenderedFrame(image, head.image.cpu().numpy(), head.alpha.cpu().numpy())

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).float().to(self.state.identity.device)


def _without_gradients(frames: Iterator[RenderedFrame]) -> Iterator[RenderedFrame]:
    """The same frames, each made without gradients; between them the caller's own setting holds."""
    while True:
        with torch.no_grad():
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def ping_pong(length: int, count: int, start: int = 0) -> np.ndarray:
    """Entries `start` to `start + count` of the endless sequence 0 .. length - 1 and back again."""
    if length == 1:
        return np.zeros(count, dtype=int)
    position = (start + np.arange(count)) % (2 * length - 2)
    return np.where(position < length, position, 2 * length - 2 - position)


def load_avatar(shared: Path, speaker: Path, backend: Backend, batch_frames: int = 32) -> Avatar:
    """Read a shared network and a speaker.

    Raises:
        ArtefactBroken: a file is missing or damaged, or the speaker was trained with another shared network.
    """
    network, _ = GenSync.load(shared, backend.device)
    return Avatar(network, SpeakerState.load(speaker, backend.device), backend, batch_frames)
