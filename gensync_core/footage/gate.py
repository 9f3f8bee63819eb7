"""The footage gate: what is wrong with a video before hours are spent on it, and what a person can do about it.

`check_footage` raises nothing for bad footage: it returns findings. A finding of severity `reject` keeps footage out,
`fixed` is mended at ingestion, `warn` is for the person to judge. The checks themselves are in `footage.stream_checks` and
`footage.face_checks`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gensync_core.errors import FootageRejected
from gensync_core.footage.face_checks import FACE_CHECKS
from gensync_core.footage.findings import FaceBox, FaceSample, Finding, Footage, GateParams
from gensync_core.footage.stream_checks import STREAM_CHECKS
from gensync_core.media.clip_cutting import BoxLike
from gensync_core.media.video import Probe, Unreadable, iter_frames, probe
from gensync_core.progress import progress

__all__ = ["CountFaces", "FaceBox", "FaceSample", "Finding", "Footage", "GateParams", "GateReport", "check_footage"]

CountFaces = Callable[[np.ndarray], Sequence[BoxLike]]

_LONGER_SIDE_PX = 640  # for counting faces: their detectors look at 192 px
_SEVERITIES = ("reject", "fixed", "warn")


@dataclass(frozen=True, slots=True)
class GateReport:
    """Findings, rejections first; `probe` is None where the file could not be read at all."""

    path: Path
    findings: tuple[Finding, ...]
    probe: Probe | None
    samples: tuple[FaceSample, ...] = ()

    @property
    def rejected(self) -> bool:
        """Whether the footage is not fit for use."""
        return any(finding.severity == "reject" for finding in self.findings)

    @property
    def speaker_faces(self) -> list[FaceBox]:
        """The largest face of every sampled frame that shows one."""
        return [sample.faces[0] for sample in self.samples if sample.faces]

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
        }


def check_footage(path: Path, params: GateParams, count_faces: CountFaces) -> GateReport:
    """Run all checks; faces are counted only where nothing else keeps the footage out.

    Args:
        path: any file.
        params: thresholds.
        count_faces: boxes (x, y, w, h in px) of the faces in an RGB frame, uint8 [H, W, 3].
    """
    try:
        footage = Footage(path, probe(path))
    except Unreadable as error:
        code = "truncated" if error.truncated else "unreadable"
        return GateReport(path, (Finding(code, "reject", str(error).removeprefix(f"{path}: ")),), None)
    findings = [finding for check in STREAM_CHECKS for finding in check(footage, params)]
    if not any(finding.severity == "reject" for finding in findings):
        try:
            samples = tuple(_sample_faces(path, footage.probe, params, count_faces))
        except FootageRejected as error:
            message = str(error).removeprefix(f"{path}: ")
            return GateReport(path, (Finding("unreadable", "reject", message), *findings), footage.probe)
        footage = Footage(path, footage.probe, samples)
        findings += [finding for check in FACE_CHECKS for finding in check(footage, params)]
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return GateReport(path, tuple(findings), footage.probe, footage.samples)


def _sample_faces(path: Path, found: Probe, params: GateParams, count_faces: CountFaces) -> list[FaceSample]:
    rate = min(params.samples_per_second, params.max_samples / found.video_duration_s)
    scale = min(1.0, _LONGER_SIDE_PX / max(found.width, found.height))
    width, height = max(round(found.width * scale), 1), max(round(found.height * scale), 1)
    samples = []
    with progress(f"faces {path.name}", max(round(found.video_duration_s * rate), 1)) as bar:
        for index, frame in enumerate(iter_frames(path, fps=rate, width=width, height=height)):
            faces = sorted(count_faces(frame), key=lambda face: -face.h)
            people = [face for face in faces if face.h >= params.min_face_ratio * faces[0].h]
            boxes = tuple(FaceBox(face.x / scale, face.y / scale, face.w / scale, face.h / scale) for face in people)
            samples.append(FaceSample(round(index / rate, 3), boxes))
            bar.advance()
    return samples
