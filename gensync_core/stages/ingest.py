"""ingest: footage of any kind in; a square clip at 25 fps, its sound, and what was found in the footage out."""

import logging
from pathlib import Path

from gensync_core.artefacts import atomic_path, sha256_of, write_json
from gensync_core.errors import ArtefactBroken
from gensync_core.evaluation.provenance import code_digest
from gensync_core.footage.findings import Finding
from gensync_core.footage.gate_report import GateReport
from gensync_core.footage.kept_reports import check_once
from gensync_core.media.clip_cutting import SquareCrop, in_sync, planned_frames, shared_span, square_crop
from gensync_core.media.video import IngestParams, Probe, cut_clip
from gensync_core.params import Params
from gensync_core.paths import Project
from gensync_core.progress import progress

_log = logging.getLogger(__name__)


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Write `clip.mp4`, `audio.wav` and `clip.json` of one speaker, or none of them.

    Raises:
        FootageRejected: the footage gate found a reason; the message says what to do.
        ArtefactBroken: the footage is gone, or is not what was onboarded.
    """
    speaker = project.registry().get(speaker_id)
    paths = project.speaker(speaker)
    sha256 = _checked_sha256(paths.raw, speaker.sha256)
    report = check_once(paths.raw, params.gate, project.gate_reports, code_digest(), sha256)
    report.raise_if_rejected()
    assert report.probe is not None
    found = in_sync(report.probe, report.sound_late_s)
    crop = square_crop(report.speaker_faces, found.width, found.height, params.ingest)
    findings = [*report.findings, *_cut_findings(found, params.ingest)]
    with atomic_path(paths.clip) as clip, atomic_path(paths.wav) as wav:
        num_frames = _cut(paths.raw, report, crop, params.ingest, speaker_id, clip, wav)
    write_json(
        paths.clip_json,
        {
            "speaker": speaker_id,
            "source": {
                "name": paths.raw.name,
                "sha256": sha256,
                "width": found.width,
                "height": found.height,
                "fps": found.avg_fps,
                "duration_s": found.duration_s,
                "rotation_deg": found.rotation_deg,
                "sound_late_s": report.sound_late_s,
            },
            "crop": crop._asdict(),
            "fps": params.ingest.fps,
            "num_frames": num_frames,
            "duration_s": num_frames / params.ingest.fps,
            "resolution": params.ingest.resolution,
            "findings": [finding.to_json() for finding in findings],
        },
    )
    for finding in findings:
        _log.info("%s: %s: %s", speaker_id, finding.severity, finding.message)
    _log.info("%s: %d frames, crop of %d px at (%d, %d)", speaker_id, num_frames, crop.size, crop.x, crop.y)


def _checked_sha256(raw: Path, expected: str) -> str:
    try:
        sha256 = sha256_of(raw)
    except OSError as error:
        raise ArtefactBroken(f"{raw}: the footage cannot be read ({error}); restore it or run `dvc pull`") from error
    if sha256 != expected:
        raise ArtefactBroken(f"{raw}: is not the file that was onboarded; restore it, or onboard the new one under another id")
    return sha256


def _cut(raw: Path, report: GateReport, crop: SquareCrop, params: IngestParams, name: str, clip: Path, wav: Path) -> int:
    found, late_s = report.probe, report.sound_late_s
    assert found is not None
    with progress(f"ingest {name}", planned_frames(in_sync(found, late_s), params)) as bar:

        def on_frame(frames: int) -> None:
            bar.advance(frames - bar.done)

        num_frames = cut_clip(raw, found, crop, params, clip=clip, wav=wav, sound_late_s=late_s, on_frame=on_frame)
        on_frame(bar.total)
    return num_frames


def _cut_findings(found: Probe, params: IngestParams) -> list[Finding]:
    used, whole = planned_frames(found, params), shared_span(found).num_frames
    if used == whole:
        return []
    seconds = used / params.fps
    message = f"only the first {seconds:g} s of {whole / params.fps:.1f} s are used (ingest.max_seconds)"
    return [Finding("cut_to_max_seconds", "warn", message, (seconds,))]
