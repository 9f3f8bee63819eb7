"""A look at a running training: true frames over rendered ones."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from gensync_core.artefacts import atomic_path
from gensync_core.gaussians.rasterize import Backend
from gensync_core.model.gensync import GenSync
from gensync_core.rendering.compositor import render_layer
from gensync_core.rendering.picture import picture
from gensync_core.training.objective import Trainee

_COLUMNS = 6


@torch.no_grad()
def preview(network: GenSync, trainees: list[Trainee], backend: Backend) -> UInt8[np.ndarray, "height width 3"]:
    """One training frame of each of the first speakers, above it what the avatar makes of it; mouths are open.

    Speakers of unequal size are shown in the size of the first.
    """
    pairs = [_pair(network, trainee, backend) for trainee in trainees[:_COLUMNS]]
    size = pairs[0].shape[1::-1]
    return np.concatenate([np.asarray(Image.fromarray(pair).resize(size)) for pair in pairs], axis=1)


def _pair(network: GenSync, trainee: Trainee, backend: Backend) -> UInt8[np.ndarray, "height width 3"]:
    data, state, device = trainee.data, trainee.state, backend.device
    apertures = data.aperture[: data.num_train]
    frame = int(np.argsort(apertures)[int(0.9 * (len(apertures) - 1))])
    pose, body_pose = (part[frame].to(device) for part in (data.head_to_camera, data.body_to_camera))
    audio = network.encode_audio(data.features.to(device), torch.tensor([frame], device=device))
    cloud, _ = network.deform_head(state, audio, data.upper_face[frame : frame + 1].to(device), pose[None])
    head = render_layer(cloud, pose, data.camera, backend)
    torso = render_layer(network.deform_torso(state, pose[None], body_pose[None]), body_pose, data.camera, backend)
    return np.concatenate([picture(head, torso, state.plate, backend.threads), data.frames[frame]], axis=0)


def write_preview(path: Path, network: GenSync, trainees: list[Trainee], backend: Backend) -> None:
    """Write `preview` as a PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(preview(network, trainees, backend)).save(temporary, format="PNG")
