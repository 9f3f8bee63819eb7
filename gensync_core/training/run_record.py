"""What a stage cost: seconds, memory, device. Kept out of versioned artefacts, which must not change between runs."""

import resource
import time
from pathlib import Path
from typing import Any

from gensync_core.artefacts import write_json
from gensync_core.gaussians.rasterize import Backend


class RunRecord:
    """Opens at the start of a stage; `write` closes it."""

    def __init__(self, stage: str, backend: Backend) -> None:
        self.stage, self.backend = stage, backend
        self._start = time.monotonic()

    def write(self, scratch: Path, **figures: Any) -> None:
        """Write `<stage>.json` beside the scratch folder, with further figures of the stage's own."""
        write_json(
            scratch.parent / "runs" / f"{self.stage}.json",
            {
                "stage": self.stage,
                "seconds": time.monotonic() - self._start,
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "device": self.backend.device,
                "rasterizer": self.backend.name,
                **figures,
            },
        )
