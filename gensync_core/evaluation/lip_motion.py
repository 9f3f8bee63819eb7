"""How the head field moves the lips, in the canonical frame: without rendering, and without what a turning head adds.

Shapes: F frames, T frames of sound, D feature size.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gensync_core.face.canonical import LIP_CENTRES
from gensync_core.geometry.motion import Motion
from gensync_core.model.gensync import pose_code
from gensync_core.rendering.synthesis import Avatar


@torch.no_grad()
def lip_openings(
    avatar: Avatar,
    landmarks: Float[Tensor, "478 3"],
    features: Float[Tensor, "T D"],
    frames: Int[np.ndarray, "F"],
    motion: Motion,
) -> Float[np.ndarray, "F"]:
    """Distance of the lips' inner centres (dm).

    Args:
        avatar: whose field moves them.
        landmarks: the speaker's mean shape, dm.
        features: of the sound.
        frames: which of them each frame hears.
        motion: of each frame.
    """
    network, state = avatar.network, avatar.state
    device, lips = state.identity.device, landmarks[list(LIP_CENTRES)].to(state.identity.device)
    moved = network.deform_points(
        state.aligner.to_box(lips)[None],
        network.encode_audio(features.to(device), torch.from_numpy(frames).to(device)),
        state.identity.expand(len(frames), -1),
        motion.upper_face.to(device),
        pose_code(motion.head_to_camera.to(device), state.mean_pose),
    ).means
    upper, lower = (lips + state.aligner.motion_from_box(moved)).unbind(dim=1)
    return torch.linalg.vector_norm(lower - upper, dim=-1).cpu().numpy()
