"""The shared network, assembled: audio encoder, disentanglement, head field, torso field.

Shapes: B frames, N Gaussians, Z identity code, D feature size.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gensync_core.artefacts import read_tensors, write_tensors
from gensync_core.audio.windows import spans
from gensync_core.errors import ArtefactBroken
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.model.audio_encoder import AudioEncoder, FeatureStandardiser
from gensync_core.model.dense_triplane import DenseTriplane
from gensync_core.model.disentanglement import Disentanglement
from gensync_core.model.hash_triplane import HashTriplane
from gensync_core.model.head_field import Deformation, HeadField
from gensync_core.model.model_params import ModelParams
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.model.torso_field import TorsoField


class GenSync(nn.Module):
    """One network for all speakers; everything that is a speaker's own comes in as `SpeakerState`.

    `mean_identity` [Z] is the mean of the cohort's codes, from which a new speaker starts.
    """

    mean_identity: Tensor

    def __init__(self, params: ModelParams, feature_size: int) -> None:
        super().__init__()
        self.params, self.feature_size = params, feature_size
        size = params.audio_size
        self.register_buffer("mean_identity", torch.zeros(params.identity_size))
        self.standardise = FeatureStandardiser(feature_size)
        self.audio_encoder = AudioEncoder(feature_size, size, params.neighbours, params.window_size, smoothing=params.smoothing)
        self.disentanglement = Disentanglement(params.identity_size, size, size, params.rank, params.fusion)  # pyright: ignore[reportArgumentType]
        self.head_field = HeadField(
            _triplane(params),
            params.identity_size,
            size,
            params.hidden_size,
            tuple(params.deform),
            params.mean_scale,
            params.mouth_radius,
            attention=params.attention,
        )
        self.torso_field = TorsoField(HashTriplane(4, 8, 64, 12, 2), params.identity_size)

    def encode_audio(
        self,
        features: Float[Tensor, "T D"],
        frames: Int[Tensor, "B"],
        noise: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B A"]:
        """Audio codes of some frames of a clip's features; `noise` (in deviations) augments training."""
        heard = self.standardise(spans(features, frames, self.params.neighbours, self.params.window_size))
        return self.audio_encoder(heard, noise, generator)

    def deform_points(
        self,
        points: Float[Tensor, "#B N 3"],
        audio: Float[Tensor, "B A"],
        identity: Float[Tensor, "B Z"],
        upper_face: Float[Tensor, "B 6"],
        pose: Float[Tensor, "B 12"],
    ) -> Deformation:
        """Deformation of any points of the canonical box: Gaussians, or the landmarks of the motion terms.

        Points [1, N, 3] are those of all frames.
        """
        return self.head_field(points, self.disentanglement(identity, audio), identity, upper_face, pose)

    def deform_head(
        self,
        state: SpeakerState,
        audio: Float[Tensor, "1 A"],
        upper_face: Float[Tensor, "1 6"],
        head_to_camera: Float[Tensor, "1 4 4"],
    ) -> tuple[GaussianCloud, Deformation]:
        """The speaker's head at one frame, still in the canonical frame."""
        head = state.head
        pose = pose_code(head_to_camera, state.mean_pose)
        moved = self.deform_points(state.aligner.to_box(head.means)[None], audio, state.identity[None], upper_face, pose)
        # `squeeze`, not `[0]`: the gradient of an index is a copy.
        quats, log_scales, logit_opacities = (
            rest if offsets is None else rest + offsets.squeeze(0)
            for rest, offsets in (
                (head.quats, moved.quats),
                (head.log_scales, moved.log_scales),
                (head.logit_opacities, moved.logit_opacities),
            )
        )
        means = torch.addcdiv(head.means, moved.means.squeeze(0), state.aligner.scale)
        cloud = GaussianCloud(means, quats, log_scales, logit_opacities, head.sh)
        return cloud, moved

    def deform_torso(
        self, state: SpeakerState, head_to_camera: Float[Tensor, "1 4 4"], body_to_camera: Float[Tensor, "1 4 4"]
    ) -> GaussianCloud:
        """The speaker's torso at one frame, in the body's frame: to be seen from the camera at `body_to_camera`."""
        if not self.params.torso_field:
            return state.torso
        code = self.torso_field.pose_code(head_to_camera, body_to_camera, state.mean_pose)
        box = (state.torso.means - state.torso_centre) / state.torso_half_size
        d_means, d_quats = self.torso_field(box[None], state.identity[None], code)
        return replace(
            state.torso, means=state.torso.means + d_means[0] * state.torso_half_size, quats=state.torso.quats + d_quats[0]
        )

    def save(self, path: Path, meta: dict[str, Any]) -> None:
        """Write the weights with the architecture they belong to."""
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}
        write_tensors(path, arrays, {**meta, "model": asdict(self.params), "feature_size": self.feature_size})

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> tuple["GenSync", dict[str, Any]]:
        """Read a shared network and its `meta`.

        Raises:
            ArtefactBroken: missing, damaged, or of another architecture.
        """
        arrays, meta = read_tensors(path)
        try:
            network = cls(ModelParams(**meta["model"]), int(meta["feature_size"]))
            network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtefactBroken(f"{path}: not a shared network of this version ({error}); run joint again") from error
        return network.to(device), meta


def _triplane(params: ModelParams) -> HashTriplane | DenseTriplane:
    hashed = HashTriplane(params.triplane_levels, 16, params.triplane_finest, params.triplane_log2_table, 2)
    if params.triplane == "hash":
        return hashed
    return DenseTriplane(-(-params.triplane_levels // 2), 4, hashed.table.numel())


def pose_code(head_to_camera: Float[Tensor, "B 4 4"], mean_pose: Float[Tensor, "4 4"]) -> Float[Tensor, "B 12"]:
    """Rotation and translation relative to the speaker's mean pose; zero at the mean pose."""
    relative = torch.linalg.inv(mean_pose)[None] @ head_to_camera
    return (relative[:, :3] - torch.eye(4, device=relative.device)[:3]).reshape(-1, 12)
