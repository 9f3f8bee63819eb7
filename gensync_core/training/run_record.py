"""What a training cost: seconds, memory, device. Kept out of versioned artefacts, which must not change between runs."""

import resource
import time
from pathlib import Path

from gensync_core.artefacts import write_json
from gensync_core.gaussians.rasterize import Backend


class RunRecord:
    """Opens at the start of a stage; `write` closes it."""

    def __init__(self, stage: str, backend: Backend) -> None:
        self.stage, self.backend = stage, backend
        self._start = time.monotonic()

    def write(self, scratch: Path, images_seen: int, resumed_at: int = 0) -> None:
        """Write `<stage>.json` beside the scratch folder."""
        write_json(
            scratch.parent / "runs" / f"{self.stage}.json",
            {
                "stage": self.stage,
                "seconds": time.monotonic() - self._start,
                "images_seen": images_seen,
                "resumed_at_step": resumed_at,
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "device": self.backend.device,
                "rasterizer": self.backend.name,
            },
        )
