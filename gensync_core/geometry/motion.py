"""What head, body and upper face do from frame to frame, whatever is spoken."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class Motion(NamedTuple):
    """Motion of one speaker in B frames.

    Attributes:
        head_to_camera: pose of the head's canonical frame, dm.
        body_to_camera: where the body of the speaker's reference frame is seen; see `face.torso_tracker.body_poses`.
        upper_face: eyes and brows.
    """

    head_to_camera: Float[Tensor, "B 4 4"]
    body_to_camera: Float[Tensor, "B 4 4"]
    upper_face: Float[Tensor, "B 6"]

    def take(self, frames: slice | Int[Tensor, "b"] | Int[np.ndarray, "b"]) -> "Motion":
        """Some of the frames."""
        return Motion(*(part[frames] for part in self))

    def to(self, device: str | torch.device) -> "Motion":
        """The same on another device."""
        return Motion(*(part.to(device) for part in self))
