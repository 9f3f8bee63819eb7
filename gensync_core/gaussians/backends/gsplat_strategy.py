"""gsplat's rules for growing, pruning and resetting Gaussians, with a bound on their number. Plain torch: no CUDA needed.

Importing this module imports gsplat, which takes over a second: do it late.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.ops import reset_opa


@dataclass
class BoundedStrategy(DefaultStrategy):
    """DefaultStrategy that never grows beyond `max_gaussians`, and that does reset opacities."""

    max_gaussians: int = 1 << 62

    def step_post_backward(
        self,
        params: Any,
        optimizers: Mapping[str, torch.optim.Optimizer],
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
    ) -> None:
        super().step_post_backward(params, dict(optimizers), state, step, info, packed)
        # gsplat 1.5.3 means to do this itself, but its `step % self.reset_every == 0 & step > 0` is never true. A release
        # that does it as well changes nothing: the second clamp finds nothing to clamp.
        if 0 < step < self.refine_stop_iter and step % self.reset_every == 0:
            reset_opa(params, dict(optimizers), state, value=2 * self.prune_opa)

    @torch.no_grad()
    def _grow_gs(
        self, params: Any, optimizers: dict[str, torch.optim.Optimizer], state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        """Where there is room for some candidates only, those with the largest gradients grow; each takes one place."""
        room = max(self.max_gaussians - len(params["means"]), 0)
        gradients = state["grad2d"] / state["count"].clamp_min(1)
        candidates = torch.where(gradients > self.grow_grad2d)[0]
        if len(candidates) > room:
            order = gradients[candidates].argsort(descending=True, stable=True)
            state["grad2d"][candidates[order[room:]]] = 0
        return super()._grow_gs(params, optimizers, state, step)
