"""Head over torso over background plate.

Shapes: H = height, W = width of the frame.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.rasterize import Backend, ScreenData, rasterize
from gensync_core.geometry.camera import Intrinsics


class Layer(NamedTuple):
    """Premultiplied colour and coverage of one cloud."""

    image: Float[Tensor, "H W 3"]
    alpha: Float[Tensor, "H W"]


def render_layer(cloud: GaussianCloud, world_to_camera: Float[Tensor, "4 4"], camera: Intrinsics, backend: Backend) -> Layer:
    """Rasterize one cloud over black. For a head `world_to_camera` is its pose: its world is the canonical frame."""
    return render_layer_and_screen(cloud, world_to_camera, camera, backend)[0]


def render_layer_and_screen(
    cloud: GaussianCloud, world_to_camera: Float[Tensor, "4 4"], camera: Intrinsics, backend: Backend
) -> tuple[Layer, ScreenData]:
    """As `render_layer`, with what densification needs to know of each Gaussian."""
    intrinsics = torch.tensor(
        [[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]],
        dtype=cloud.means.dtype,
        device=cloud.means.device,
    )
    result = rasterize(
        cloud.means,
        cloud.quats,
        cloud.scales,
        cloud.opacities,
        cloud.sh if cloud.sh_degree else cloud.colors,
        world_to_camera[None],
        intrinsics[None],
        camera.width,
        camera.height,
        sh_degree=cloud.sh_degree or None,
        backend=backend,
    )
    return Layer(result.image[0, ..., :3], result.alpha[0].reshape(camera.height, camera.width)), result.screen


def over(layer: Layer, behind: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
    """Composite a premultiplied layer over an opaque image."""
    return layer.image + (1 - layer.alpha)[..., None] * behind
