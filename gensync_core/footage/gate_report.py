"""What the footage gate says of a file. Apart from what finds it out, which takes seconds to load."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gensync_core.errors import FootageRejected
from gensync_core.footage.findings import FaceBox, FaceSample, Finding, largest_faces
from gensync_core.media.probe import Probe


@dataclass(frozen=True, slots=True)
class GateReport:
    """Findings, rejections first.

    Attributes:
        path: of the footage.
        findings: what was found.
        probe: None where the file could not be read at all.
        samples: the people in frames spread over the footage.
        sound_late_s: by how much the sound is late and to be shifted forward; 0 where that is not certain.
    """

    path: Path
    findings: tuple[Finding, ...]
    probe: Probe | None
    samples: tuple[FaceSample, ...] = ()
    sound_late_s: float = 0.0

    @property
    def rejected(self) -> bool:
        """Whether the footage is not fit for use."""
        return any(finding.severity == "reject" for finding in self.findings)

    @property
    def speaker_faces(self) -> list[FaceBox]:
        """The largest face of every sampled frame that shows one."""
        return largest_faces(self.samples)

    def codes(self) -> set[str]:
        """Codes of all findings."""
        return {finding.code for finding in self.findings}

    def raise_if_rejected(self) -> None:
        """Raise where there is a reason to.

        Raises:
            FootageRejected: with the reasons, in one line.
        """
        reasons = [finding.message for finding in self.findings if finding.severity == "reject"]
        if reasons:
            raise FootageRejected(f"{self.path}: {'; '.join(reasons)}")

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "file": str(self.path),
            "rejected": self.rejected,
            "findings": [finding.to_json() for finding in self.findings],
            "probe": None if self.probe is None else asdict(self.probe),
            "faces": {
                "sampled": len(self.samples),
                "without": sum(not sample.faces for sample in self.samples),
                "several": sum(len(sample.faces) > 1 for sample in self.samples),
                "median_height_px": float(np.median([face.h for face in self.speaker_faces])) if self.speaker_faces else None,
            },
            "sound_late_s": self.sound_late_s,
        }
