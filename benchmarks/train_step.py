"""Where does the time of a training step go?

    python benchmarks/train_step.py [--json FILE] [--threads 1 2] [--torch-threads 1] [--scenes 5000,128 10000,256 20000,256]

The model, losses and optimisers are those of `params.yaml` and `training/fit.py`; footage and speech are made up, with
Gaussians that look like a head and shoulders (`rasterize.head_scene`). Two steps are measured in one piece:

- `step`: one frame of one speaker through audio encoder, tri-plane, field, rasterizer, loss, backward and optimiser;
- `joint`: the step that `joint` does: a batch of images of two speakers, landmark motion of both with the identities
  swapped, and the speaker classifier.

Each slice of `step` is run alone, forward and backward, from inputs without a history and with a random gradient coming
in, because the backward pass of a whole step does not tell its parts apart:

- encode: audio encoder (with its windows) and hash tri-plane;
- conditions: disentanglement, tokens and modulations of a frame, folded into the weights of its decoder;
- network: the rest of `deform_head`, measured as all of it less tri-plane and conditions: attention, decoder, aligner;
- rasterize: `render_layer`, with the activations of the raw parameters;
- loss: frame and mask from the store, and `head_loss`: backdrop, L1 + SSIM with the mouth's weight, alpha term;
- optimiser: one update of the speaker's and one of the shared parameters.

All times are the fastest of several rounds, in ms. A round runs everything once, so that a busy neighbour slows all alike.
"""

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rasterize import head_scene
from torch import Tensor

from gensync_core.dataset.clip_dataset import ClipDataset
from gensync_core.dataset.sampler import Choice
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.face.regions import HEAD, Region
from gensync_core.gaussians.backends.cpu_runtime import set_default_threads
from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.rasterize import Backend
from gensync_core.gaussians.spherical_harmonics import SH_C0
from gensync_core.geometry.camera import Intrinsics
from gensync_core.media.frames import FrameStore
from gensync_core.model.gensync import GenSync, pose_code
from gensync_core.model.speaker_state import Aligner, SpeakerState
from gensync_core.params import Params, load_params
from gensync_core.rendering.compositor import Layer, over, render_layer
from gensync_core.training.fit import Fit, descend
from gensync_core.training.objective import Trainee, head_loss, head_terms, motion_terms

SCENES = ("5000,128", "10000,256", "20000,256")
FRAMES, FRAME, FEATURE_SIZE, TORSO_GAUSSIANS = 60, 7, 384, 2000
SLICES = ("encode", "conditions", "network", "rasterize", "loss", "optimiser")
ROOT = Path(__file__).resolve().parents[1]


def cloud_of(count: int, size_px: int, seed: int) -> tuple[GaussianCloud, Tensor, Tensor]:
    scene, viewmats, Ks = head_scene(count, size_px, seed)
    cloud = GaussianCloud(
        **{name: scene[name] for name in ("means", "quats")},
        log_scales=scene["scales"].log(),
        logit_opacities=torch.logit(scene["opacities"], eps=1e-4),
        sh=((scene["colors"] - 0.5) / SH_C0)[:, None],
    )
    return cloud.requires_grad(), viewmats[0], Ks[0]


def trainee_of(count: int, size_px: int, identity_size: int, seed: int) -> Trainee:
    """A made-up speaker: its frames show its own cloud, somewhat noisy."""
    cloud, pose, K = cloud_of(count, size_px, seed)
    fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = Intrinsics(fx, fy, cx, cy, size_px, size_px)
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    with torch.no_grad():
        layer = render_layer(cloud, pose, camera, Backend("cpu", "cpu"))
        picture = (over(layer, torch.full((size_px, size_px, 3), 0.4)) + 0.1 * normal(size_px, size_px, 3)).clamp(0, 1)
    frames = np.repeat((picture * 255).to(torch.uint8).numpy()[None], FRAMES, axis=0)
    labels = np.where(layer.alpha.numpy() > 0.5, int(HEAD[0]), int(Region.BACKGROUND)).astype(np.uint8)
    landmarks = torch.from_numpy(canonical_landmarks().astype(np.float32))
    seen = (landmarks @ pose[:3, :3].T + pose[:3, 3]) @ K.T
    landmarks_px = torch.cat([seen[:, :2] / seen[:, 2:], seen[:, 2:]], dim=1)
    data = ClipDataset(
        frames=FrameStore(frames),
        masks=FrameStore(np.repeat(labels[None], FRAMES, axis=0)),
        camera=camera,
        head_to_camera=pose.repeat(FRAMES, 1, 1),
        body_to_camera=torch.eye(4).repeat(FRAMES, 1, 1),
        reference_frame=0,
        upper_face=0.1 * normal(FRAMES, 6),
        landmarks_px=landmarks_px.repeat(FRAMES, 1, 1),
        canonical_landmarks=landmarks,
        canonical_motion=0.05 * normal(FRAMES, len(landmarks), 3),
        aperture=rng.random(FRAMES).astype(np.float32),
        features=normal(FRAMES, FEATURE_SIZE),
        silence=0.1 * normal(FRAMES, FEATURE_SIZE),
        plate=torch.full((size_px, size_px, 3), 0.4),
        num_train=FRAMES - 6,
    )
    state = SpeakerState(
        head=cloud,
        torso=cloud_of(TORSO_GAUSSIANS, size_px, seed)[0],
        identity=0.3 * normal(identity_size),
        aligner=Aligner(torch.full((3,), 1 / 2.2), torch.zeros(3)),  # the whole scene lies inside the box
        torso_centre=torch.zeros(3),
        torso_half_size=2.2,
        plate=data.plate,
        camera=camera,
        mean_pose=pose,
        take=data.motion,
        meta={},
    )
    return Trainee.of(data, state)


class Bench:
    """A fit of two made-up speakers, and the pieces of its step as functions without arguments."""

    def __init__(self, params: Params, count: int, size_px: int, threads: int) -> None:
        torch.manual_seed(0)
        self.params, self.losses = params, params.loss
        self.backend = Backend("cpu", "cpu", threads)
        self.network = GenSync(params.model, FEATURE_SIZE)
        torch.nn.init.normal_(self.network.head_field.last.weight, std=0.02)
        trainees = [trainee_of(count, size_px, params.model.identity_size, seed) for seed in (0, 1)]
        self.trainee, self.data, self.state = trainees[0], trainees[0].data, trainees[0].state
        # Rates of 0: the scene stays what it is, however long it is measured.
        still = replace(params.joint, network_rate=0.0, grid_rate=0.0, identity_rate=0.0, gaussian_rate=0.0)
        self.fit = Fit(self.network, trainees, still, params.loss, self.backend, params.seed, train_shared=True)
        self.optimisers = [self.fit.own[0], *([self.fit.shared] if self.fit.shared is not None else [])]
        self.behind = torch.tensor([0.2, 0.5, 0.8])

    def audio(self) -> Tensor:
        return self.network.encode_audio(self.data.features, torch.tensor([FRAME]))

    def step(self) -> None:
        terms = head_terms(self.network, self.trainee, FRAME, self.audio(), self.losses, self.backend, self.behind)
        descend(terms.total, self.optimisers)

    def joint_step(self) -> None:
        batch = [Choice(number % 2, FRAME) for number in range(self.params.joint.batch_size)]
        loss, _ = self.fit.objective(0, batch, torso=False)
        descend(loss, [*self.fit.own, self.optimisers[-1]])

    def motion(self) -> Tensor:
        first = np.arange(self.params.joint.motion_pairs) % (self.data.num_train - 1)
        other = self.fit.trainees[1].state.identity.detach()
        generator, noise = torch.Generator().manual_seed(0), self.params.joint.feature_noise
        return motion_terms(self.network, self.trainee, first, self.losses, noise, generator, other).total

    def forwards(self) -> dict[str, Callable[[], list[Tensor]]]:
        """Forward pass of each piece; `field` holds the tri-plane, which is taken off afterwards."""
        network, state, data = self.network, self.state, self.data
        pose, upper_face = data.head_to_camera[FRAME], data.upper_face[FRAME : FRAME + 1]
        points = state.aligner.to_box(state.head.means.detach()).requires_grad_()
        audio = self.audio().detach().requires_grad_()
        deformed = network.deform_head(state, audio, upper_face, pose[None])[0].requires_grad()
        drawn = Layer(*(x.requires_grad_() for x in render_layer(deformed.detach(), pose, data.camera, self.backend)))

        def conditions() -> list[Tensor]:
            identity = state.identity[None]
            fused = network.disentanglement(identity, audio)
            return list(network.head_field.frame_network(fused, identity, upper_face, pose_code(pose[None], state.mean_pose)))

        def field() -> list[Tensor]:
            cloud, moved = network.deform_head(state, audio, upper_face, pose[None])
            return [cloud.means, cloud.quats, cloud.log_scales, cloud.logit_opacities, moved.audio_attention]

        def loss() -> list[Tensor]:
            photometric, alpha = head_loss(data, FRAME, drawn, self.behind, self.losses.ssim, self.losses.mouth)
            return [photometric + self.losses.alpha * alpha]

        return {
            "audio": lambda: [self.audio()],
            "triplane": lambda: [network.head_field.triplane(points)],
            "conditions": conditions,
            "field": field,
            "rasterize": lambda: list(render_layer(deformed, pose, data.camera, self.backend)),
            "loss": loss,
            "motion": lambda: [self.motion()],
        }

    def measure(self, rounds: int) -> dict[str, float]:
        """Fastest ms of everything: `NAME` forward and backward, `NAME forward`."""
        fastest: dict[str, float] = {}

        def timed(name: str, run: Callable[[], object]) -> None:
            start = time.perf_counter()
            run()
            fastest[name] = min(fastest.get(name, float("inf")), 1e3 * (time.perf_counter() - start))

        forwards = self.forwards()
        upstream = {name: [torch.randn_like(out) for out in run()] for name, run in forwards.items()}
        for round_number in range(rounds + 2):
            if round_number == 2:  # the first rounds compile and warm up
                fastest.clear()
            timed("step", self.step)
            timed("optimiser", lambda: [optimiser.step() for optimiser in self.optimisers])
            for name, run in forwards.items():
                for optimiser in (*self.fit.own, self.optimisers[-1]):
                    optimiser.zero_grad()
                timed(f"{name} forward", run)
                timed(name, lambda run=run, name=name: torch.autograd.backward(run(), upstream[name]))
            timed("joint", self.joint_step)
        for suffix in ("", " forward"):
            fastest[f"encode{suffix}"] = fastest[f"audio{suffix}"] + fastest[f"triplane{suffix}"]
            before = fastest[f"triplane{suffix}"] + fastest[f"conditions{suffix}"]
            fastest[f"network{suffix}"] = fastest[f"field{suffix}"] - before
        return fastest


def print_times(times: dict[str, float]) -> None:
    total = sum(times[name] for name in SLICES)
    for name in SLICES:
        forward = f"{times[f'{name} forward']:.2f}" if f"{name} forward" in times else ""
        print(f"  {name:<10} {times[name]:7.2f} {forward:>7} {100 * times[name] / total:4.0f} %")
    notes = {"step": f"sum {total:.2f}, rest {times['step'] - total:.2f}", "joint": f"motion {times['motion']:.2f}"}
    for name, note in notes.items():
        print(f"  {name:<10} {times[name]:7.2f}  {1e3 / times[name]:.1f} steps/s, {note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write all times here")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the kernels: rasterizer, field, loss")
    parser.add_argument(
        "--torch-threads", type=int, default=1, help="0: as many as the kernels'; both on the same cores collide"
    )
    parser.add_argument("--scenes", nargs="+", default=SCENES, help="GAUSSIANS,PIXELS")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    params, rows = load_params(ROOT / "params.yaml"), []
    print("ms, of it forward, share of the sum. rest: step less sum; motion: of one of joint's two speakers")
    for scene in arguments.scenes:
        count, size_px = map(int, scene.split(","))
        for threads in arguments.threads:
            torch.set_num_threads(arguments.torch_threads or threads)
            set_default_threads(threads)
            times = Bench(params, count, size_px, threads).measure(arguments.rounds)
            rows.append({"gaussians": count, "size_px": size_px, "threads": threads, **times})
            print(f"\n{count} Gaussians, {size_px} px, threads: {threads}")
            print_times(times)
            print(f"  peak memory of the process so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if arguments.json:
        content = {"torch": torch.__version__, "machine": platform.machine(), "run": str(arguments), "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
