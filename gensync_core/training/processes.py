"""The processes of one training: one as a rule, several under `torchrun`, on one machine or on many.

    torchrun --nproc-per-node 2 -m gensync_core joint

Every process chooses the same batch of a step and works on its share of it; gradients are added up by torch's
DistributedDataParallel. Only the first process reads checkpoints and writes anything.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's number `rank` among `count`."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have made."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's share of the items; those of all processes together are all items."""
        return list(items[self.rank :: self.count])

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, such that the backward pass leaves every process the mean of all processes' gradients."""
        if self.count == 1:
            return module
        # A step touches some speakers only, and heads or torsos: the others' parameters have no gradient.
        return DistributedDataParallel(module, forward_sync_buffers=False, find_unused_parameters=True)

    def sum(self, scalars: dict[str, float]) -> dict[str, float]:
        """The sum of each scalar over all processes; a process need not know all of their names."""
        if self.count == 1:
            return scalars
        gathered: list[dict[str, float]] = [{}] * self.count
        distributed.all_gather_object(gathered, scalars)
        names = dict.fromkeys(name for part in gathered for name in part)
        return {name: sum(part.get(name, 0.0) for part in gathered) for name in names}

    def from_first(self, value: Any) -> Any:
        """What the first process has given; the others' values are ignored."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that `torchrun` started; a single process joins nobody.

    Each process takes the GPU of its number on its machine; on a CPU they talk through gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
