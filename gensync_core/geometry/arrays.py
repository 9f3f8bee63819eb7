"""Arrays of numpy or of torch: geometry takes both, and loads torch for nobody who has only the former."""

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", np.ndarray, Tensor)
else:
    Array = TypeVar("Array")


def stack(parts: list[Any]) -> Any:
    """Along a new last axis; torch is loaded already where a tensor is among them."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(parts[0], torch.Tensor):
        return torch.stack(parts, dim=-1)
    return np.stack(parts, axis=-1)
