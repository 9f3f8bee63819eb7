"""One speaker's avatar driven by another one's speech: does the mouth follow a voice that it was not filmed with?

The avatar keeps its mean pose and mean upper face, so that only the sound moves it. What its lips do is compared with
the mouth opening that was tracked in the footage of the voice; the control hears other moments of the same speech.
Shapes: T frames of the voice's clip, F frames that are compared, D feature size.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.evaluation.controls import shuffled_features
from gensync_core.evaluation.lip_motion import lip_openings
from gensync_core.evaluation.lip_sync import aperture_correlation
from gensync_core.evaluation.trial import take
from gensync_core.geometry.motion import Motion
from gensync_core.progress import Progress
from gensync_core.rendering.synthesis import Avatar

_Openings = Callable[[Float[np.ndarray, "T D"]], Float[np.ndarray, "F"]]


class Following(NamedTuple):
    """How a driven mouth follows a voice.

    Attributes:
        r: Pearson r of its opening with the voice's own, tracked mouth opening.
        r_shuffled: the same when it hears other moments of the same frames (`controls.shuffle_order`).
    """

    r: float
    r_shuffled: float

    @property
    def gap(self) -> float:
        """Real minus shuffled: what the sound itself contributes."""
        return self.r - self.r_shuffled


def following_of_lips(
    avatar: Avatar, landmarks: Float[Tensor, "478 3"], voice: ClipDataset, frames: Int[np.ndarray, "F"], control_shift: int
) -> Following:
    """Of the lips in the canonical frame, without rendering.

    Args:
        avatar: whose mouth is driven.
        landmarks: mean shape of the avatar's speaker, dm.
        voice: clip of the speaker who is heard, with features of the avatar's speech encoder.
        frames: of that clip, consecutive.
        control_shift: how far the control's sound is moved, in frames.
    """
    motion = _still(avatar, len(frames))

    def openings(features: np.ndarray) -> np.ndarray:
        return lip_openings(avatar, landmarks, torch.from_numpy(features), frames, motion)

    return _following(openings, voice, frames, control_shift)


def following_in_pictures(
    avatar: Avatar, voice: ClipDataset, frames: Int[np.ndarray, "F"], control_shift: int, bar: Progress
) -> Following:
    """The same of rendered frames, by the face mesh; `bar` is advanced twice for every frame."""
    motion = _still(avatar, len(frames))

    def openings(features: np.ndarray) -> np.ndarray:
        rendered = avatar.render(features, motion, frames)
        return take((frame.image for frame in rendered), bar).aperture

    return _following(openings, voice, frames, control_shift)


def _still(avatar: Avatar, num_frames: int) -> Motion:
    """Head and body as in the reference frame and the mean upper face of the avatar's take, for every frame."""
    state = avatar.state
    body = torch.eye(4, device=state.mean_pose.device)
    still = (state.mean_pose, body, state.take.upper_face.mean(dim=0))
    return Motion(*(part.expand(num_frames, *part.shape) for part in still))


def _following(openings: _Openings, voice: ClipDataset, frames: np.ndarray, control_shift: int) -> Following:
    features, true = voice.features.cpu().numpy(), voice.aperture[frames]
    shuffled = shuffled_features(features, int(frames[0]), len(frames), control_shift)
    return Following(*(aperture_correlation(true, openings(sound)) for sound in (features, shuffled)))
