"""The footage gate: what is wrong with a video before hours are spent on it, and what a person can do about it.

`check_footage` raises nothing for bad footage: it returns findings. A finding of severity `reject` keeps footage out,
`fixed` is mended at ingestion, `warn` is for the person to judge. The checks themselves are in `footage.*_checks`.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gensync_core.errors import FootageRejected
from gensync_core.face.landmarks import detect_faces
from gensync_core.footage.face_checks import FACE_CHECKS
from gensync_core.footage.findings import FaceBox, FaceSample, Finding, Footage, largest_faces
from gensync_core.footage.gate_params import GateParams
from gensync_core.footage.gate_report import GateReport
from gensync_core.footage.mouth_checks import MOUTH_CHECKS, shift_s
from gensync_core.footage.mouth_scan import MouthFacts, Spans, scan_mouth
from gensync_core.footage.picture_checks import PICTURE_CHECKS
from gensync_core.footage.picture_scan import PictureFacts, scan_picture
from gensync_core.footage.sound_checks import SOUND_CHECKS
from gensync_core.footage.sound_scan import SoundFacts, scan_sound
from gensync_core.footage.stream_checks import STREAM_CHECKS
from gensync_core.media.clip_cutting import BoxLike
from gensync_core.media.video import Probe, Unreadable, iter_frames, probe
from gensync_core.progress import progress

_LONGER_SIDE_PX = 640  # for counting faces: their detectors look at 192 px
_SEVERITIES = ("reject", "fixed", "warn")


class Senses(NamedTuple):
    """What looks and listens.

    Attributes:
        faces: boxes (x, y, w, h in px) of the faces in an RGB frame, uint8 [H, W, 3].
        picture: measures all pictures, knowing the speaker's faces.
        sound: measures the sound.
        mouth: watches the mouth, knowing where speech is heard.
    """

    faces: Callable[[np.ndarray], Sequence[BoxLike]] = detect_faces
    picture: Callable[[Path, Probe, Sequence[BoxLike]], PictureFacts] = scan_picture
    sound: Callable[[Path, Probe], SoundFacts] = scan_sound
    mouth: Callable[[Footage, Spans], MouthFacts] = scan_mouth


def check_footage(path: Path, params: GateParams, senses: Senses | None = None) -> GateReport:
    """Run all checks, cheap ones first; what costs more is looked at only where nothing else keeps the footage out.

    Args:
        path: any file.
        params: thresholds.
        senses: what looks and listens; None: all there is.
    """
    try:
        found = probe(path)
    except Unreadable as error:
        code = "truncated" if error.truncated else "unreadable"
        return GateReport(path, (Finding(code, "reject", str(error).removeprefix(f"{path}: ")),), None)
    examination = _Examination(Footage(path, found), params, senses or Senses())
    try:
        examination.run()
    except FootageRejected as error:
        examination.findings.append(Finding("unreadable", "reject", str(error).removeprefix(f"{path}: ")))
    findings = sorted(examination.findings, key=lambda finding: _SEVERITIES.index(finding.severity))
    return GateReport(path, tuple(findings), found, examination.footage.samples, examination.sound_late_s)


class _Examination:
    """Looks at one piece of footage step by step, until a step rejects it."""

    def __init__(self, footage: Footage, params: GateParams, senses: Senses) -> None:
        self.footage, self.params, self.senses = footage, params, senses
        self.findings: list[Finding] = []
        self.sound_late_s = 0.0
        self._speech: Spans = ()

    def run(self) -> None:
        for step in (self._streams, self._faces, self._sound, self._picture, self._mouth):
            self.findings += step()
            if any(finding.severity == "reject" for finding in self.findings):
                return

    def _streams(self) -> Iterator[Finding]:
        for check in STREAM_CHECKS:
            yield from check(self.footage, self.params)

    def _faces(self) -> Iterator[Finding]:
        samples = tuple(_sample_faces(self.footage.path, self.footage.probe, self.params, self.senses))
        self.footage = replace(self.footage, samples=samples)
        for check in FACE_CHECKS:
            yield from check(self.footage, self.params)

    def _sound(self) -> Iterator[Finding]:
        facts = self.senses.sound(self.footage.path, self.footage.probe)
        self._speech = facts.speech
        for check in SOUND_CHECKS:
            yield from check(facts, self.params.sound)

    def _picture(self) -> Iterator[Finding]:
        faces = largest_faces(self.footage.samples)
        facts = self.senses.picture(self.footage.path, self.footage.probe, faces)
        for check in PICTURE_CHECKS:
            yield from check(facts, self.params.picture)

    def _mouth(self) -> Iterator[Finding]:
        facts = self.senses.mouth(self.footage, self._speech)
        self.sound_late_s = shift_s(facts, self.params.mouth)
        for check in MOUTH_CHECKS:
            yield from check(facts, self.params.mouth)


def _sample_faces(path: Path, found: Probe, params: GateParams, senses: Senses) -> list[FaceSample]:
    rate = min(params.samples_per_second, params.max_samples / found.video_duration_s)
    scale = min(1.0, _LONGER_SIDE_PX / max(found.width, found.height))
    width, height = max(round(found.width * scale), 1), max(round(found.height * scale), 1)
    samples = []
    expected = max(round(found.video_duration_s * rate), 1)
    # Times that only the decoder sees can make it repeat a picture for hours.
    frames = itertools.islice(iter_frames(path, fps=rate, width=width, height=height), expected + 2)
    with progress(f"faces {path.name}", expected) as bar:
        for index, frame in enumerate(frames):
            faces = sorted(senses.faces(frame), key=lambda face: -face.h)
            people = [face for face in faces if face.h >= params.min_face_ratio * faces[0].h]
            boxes = tuple(FaceBox(face.x / scale, face.y / scale, face.w / scale, face.h / scale) for face in people)
            samples.append(FaceSample(round(index / rate, 3), boxes))
            bar.advance()
    return samples
