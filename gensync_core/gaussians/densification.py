"""Trains one cloud: an Adam for each attribute, and Gaussians that are added where detail is missing and removed where idle.

The rules are those of 3DGS as gsplat's DefaultStrategy has them, on the CPU and on CUDA alike. Optimiser states follow their
Gaussians; new ones start with zero moments.

Shapes: C cameras, N Gaussians, K spherical-harmonics coefficients.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensync_core.gaussians.cloud import GaussianCloud
from gensync_core.gaussians.densify_params import DensifyParams
from gensync_core.gaussians.rasterize import ScreenData

GAUSSIAN_RATES = {"means": 4e-4, "quats": 1e-3, "log_scales": 5e-3, "logit_opacities": 2e-2, "sh": 5e-3}
"""Learning rates of 3DGS, with means in decimetre."""
# gsplat's names of our attributes. `sh` is two of its parameters: the constant coefficient learns faster than the rest.
_NAMES = {"means": "means", "quats": "quats", "log_scales": "scales", "logit_opacities": "opacities", "sh": "sh0"}
_HIGHER_SH_RATE = 1 / 20
_STATISTICS = ("grad2d", "count")


class Densifier:
    """Owns the trained tensors of a cloud and their optimisers.

    A step is: render `cloud`, `backward()` of the loss, `after_backward`. Refinement replaces the tensors: ask for `cloud`
    anew in every step.

    Args:
        cloud: where to start; copied.
        rates: learning rate of each of the cloud's attributes; higher colour coefficients get a twentieth, as in 3DGS.
        params: how to refine; None: the Gaussians stay as many as they are.
        seed: of the noise that splits draw; with the step it settles every draw, and torch's global generators are left alone.
    """

    def __init__(
        self, cloud: GaussianCloud, rates: Mapping[str, float], params: DensifyParams | None = None, seed: int = 0
    ) -> None:
        self.params, self.seed = params, seed
        tensors = {gsplat_name: getattr(cloud, name) for name, gsplat_name in _NAMES.items()}
        self._rates = {gsplat_name: rates[name] for name, gsplat_name in _NAMES.items()}
        if cloud.sh.shape[1] > 1:
            tensors |= {"sh0": cloud.sh[:, :1], "shN": cloud.sh[:, 1:]}
            self._rates["shN"] = rates["sh"] * _HIGHER_SH_RATE
        self._tensors: dict[str, torch.nn.Parameter] = {
            name: torch.nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format))
            for name, tensor in tensors.items()
        }
        self._optimisers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam([tensor], lr=self._rates[name], eps=1e-15) for name, tensor in self._tensors.items()
        }
        self._strategy: Any = None if params is None else _strategy(params)
        # gsplat fills it; thresholds are in the cloud's own unit, so the scene has scale 1.
        self._state: dict[str, Any] = {**dict.fromkeys(_STATISTICS), "scene_scale": 1.0}

    def __len__(self) -> int:
        return len(self._tensors["means"])

    @property
    def cloud(self) -> GaussianCloud:
        """The cloud as it is now, with gradients to the trained tensors."""
        sh = self._tensors["sh0"]
        if "shN" in self._tensors:
            sh = torch.cat([sh, self._tensors["shN"]], dim=1)
        return GaussianCloud(**{name: self._tensors[_NAMES[name]] for name in _NAMES if name != "sh"}, sh=sh)

    def scale_rates(self, factor: float) -> None:
        """Set every learning rate to `factor` times the one given at the start."""
        for name, optimiser in self._optimisers.items():
            optimiser.param_groups[0]["lr"] = self._rates[name] * factor

    def after_backward(self, step: int, screen: ScreenData, width: int, height: int) -> None:
        """Update the cloud by the gradients at hand, drop them, and refine where it is time to.

        Args:
            step: number of this step, from 0.
            screen: of the rendering that the loss was computed from; the loss is a mean over its cameras.
            width: of the images in px.
            height: of the images in px.

        Raises:
            ValueError: `screen` is of another cloud, or holds no gradient although the cloud is to be refined.
        """
        if screen.radii.shape[1] != len(self):
            raise ValueError(f"screen holds {screen.radii.shape[1]} Gaussians, the cloud {len(self)}")
        if self._strategy is not None and screen.gradient is None:
            raise ValueError("screen holds no gradient: render with gradients and call backward() first")
        for optimiser in self._optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if self._strategy is None:
            return
        info = {
            "means2d": screen.shift,
            "radii": screen.radii,
            "width": width,
            "height": height,
            "n_cameras": len(screen.radii),
            "gaussian_ids": None,
        }
        with _draws_settled_by(self.seed, step, screen.radii.device):
            self._strategy.step_post_backward(self._tensors, self._optimisers, self._state, step, info)

    def state_tensors(self) -> dict[str, Tensor]:
        """All that a later `restore` needs to go on exactly: tensors, moments, statistics. Learning rates are the caller's."""
        found: dict[str, Tensor] = {name: tensor.detach() for name, tensor in self._tensors.items()}
        for name, tensor in self._tensors.items():
            slots = self._optimisers[name].state.get(tensor, {})
            found |= {f"{name}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        found |= {f"statistics.{key}": self._state[key] for key in _STATISTICS if self._state[key] is not None}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_tensors` gave, of any number of Gaussians.

        Raises:
            KeyError: a tensor is missing.
        """
        for name, optimiser in self._optimisers.items():
            device = self._tensors[name].device
            restored = torch.nn.Parameter(tensors[name].detach().to(device, copy=True))
            slots = {key.split(".")[1]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
            optimiser.param_groups[0]["params"] = [restored]
            optimiser.state.clear()
            if slots:
                # Adam keeps its step count on the CPU.
                moments = {key: value.to(device, copy=True) for key, value in slots.items() if key != "step"}
                optimiser.state[restored] = {"step": slots["step"].to("cpu", copy=True), **moments}
            self._tensors[name] = restored
        for key in _STATISTICS:
            statistic = tensors.get(f"statistics.{key}")
            self._state[key] = None if statistic is None else statistic.to(self._tensors["means"].device, copy=True)


def _strategy(params: DensifyParams) -> Any:
    from gensync_core.gaussians.backends.gsplat_strategy import BoundedStrategy

    return BoundedStrategy(
        prune_opa=params.prune_opacity,
        grow_grad2d=params.grow_grad2d,
        grow_scale3d=params.grow_scale3d,
        prune_scale3d=params.prune_scale3d,
        refine_start_iter=params.start,
        refine_stop_iter=params.stop,
        refine_every=params.every,
        reset_every=params.reset_every or max(params.stop, 1),
        max_gaussians=params.max_gaussians,
    )


@contextmanager
def _draws_settled_by(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Let torch's global generators draw what (seed, step) says inside, and go on as if nothing had been drawn outside."""
    number = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        # torch.manual_seed would seed every CUDA device as well, and those are not all put back.
        torch.default_generator.manual_seed(number)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield
