"""A trained avatar: features of speech in, a stream of frames out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from gensync_core.gaussians.rasterize import Backend
from gensync_core.model.gensync import GenSync
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.rendering.compositor import over, render_layer


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthParams:
    """How synthesis runs.

    Attributes:
        batch_frames: frames whose audio codes are computed at once.
        crf: quality of the H.264 video, 0 (lossless) to 51.
    """

    batch_frames: int
    crf: int

    def __post_init__(self) -> None:
        if self.batch_frames < 1:
            raise ValueError(f"batch_frames must be positive, got {self.batch_frames}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must lie in 0..51, got {self.crf}")


class RenderedFrame(NamedTuple):
    """The finished frame (sRGB bytes), and the head alone: premultiplied colour and coverage, 0..1."""

    image: UInt8[np.ndarray, "H W 3"]
    head_image: Float[np.ndarray, "H W 3"]
    head_alpha: Float[np.ndarray, "H W"]


class Avatar:
    """One speaker with the shared network, ready to render."""

    def __init__(self, network: GenSync, state: SpeakerState, backend: Backend, batch_frames: int = 32) -> None:
        self.network, self.state, self.backend, self.batch_frames = network.eval(), state, backend, batch_frames

    @property
    def num_frames(self) -> int:
        """Frames of the take of head motion that the avatar carries."""
        return len(self.state.poses)

    @property
    def resolution(self) -> int:
        """Width = height of a frame in px."""
        return self.state.camera.width

    def natural_motion(self, count: int) -> tuple[Float[np.ndarray, "F 4 4"], Float[np.ndarray, "F 6"]]:
        """Poses and upper faces for `count` frames: the training take, forwards and backwards without a jump."""
        index = ping_pong(self.num_frames, count)
        return self.state.poses.cpu().numpy()[index], self.state.upper_face.cpu().numpy()[index]

    @torch.no_grad()
    def render(
        self,
        features: Float[np.ndarray, "T D"],
        poses: Float[np.ndarray, "F 4 4"],
        upper_face: Float[np.ndarray, "F 6"],
        frames: Sequence[int] | np.ndarray,
    ) -> Iterator[RenderedFrame]:
        """Render one frame for each entry of `frames` (indices into `features`), one at a time in constant memory."""
        device = self.state.identity.device
        speech = torch.from_numpy(np.ascontiguousarray(features)).float().to(device)
        index = torch.as_tensor(np.asarray(frames), dtype=torch.long, device=device)
        pose_of = torch.from_numpy(np.ascontiguousarray(poses)).float().to(device)
        face_of = torch.from_numpy(np.ascontiguousarray(upper_face)).float().to(device)
        for start in range(0, len(index), self.batch_frames):
            codes = self.network.encode_audio(speech, index[start : start + self.batch_frames])
            for offset in range(len(codes)):
                at = slice(start + offset, start + offset + 1)
                yield self._frame(codes[offset : offset + 1], face_of[at], pose_of[at])

    def _frame(self, audio: torch.Tensor, upper_face: torch.Tensor, pose: torch.Tensor) -> RenderedFrame:
        state = self.state
        head_cloud, _ = self.network.deform_head(state, audio, upper_face, pose)
        head = render_layer(head_cloud, pose[0], state.camera, self.backend)
        camera_frame = torch.eye(4, device=pose.device)
        torso = render_layer(self.network.deform_torso(state, pose), camera_frame, state.camera, self.backend)
        image = over(head, over(torso, state.plate))
        return RenderedFrame(
            (image.clamp(0, 1) * 255).round().byte().cpu().numpy(), head.image.cpu().numpy(), head.alpha.cpu().numpy()
        )


def ping_pong(length: int, count: int) -> np.ndarray:
    """`count` indices that run 0 .. length - 1 and back again."""
    if length == 1:
        return np.zeros(count, dtype=int)
    position = np.arange(count) % (2 * length - 2)
    return np.where(position < length, position, 2 * length - 2 - position)


def load_avatar(shared: Path, speaker: Path, backend: Backend, batch_frames: int = 32) -> Avatar:
    """Read a shared network and a speaker.

    Raises:
        ArtefactBroken: a file is missing or damaged, or the speaker was trained with another shared network.
    """
    network, _ = GenSync.load(shared, backend.device)
    return Avatar(network, SpeakerState.load(speaker, backend.device), backend, batch_frames)
