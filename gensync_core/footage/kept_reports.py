"""Reports of the footage gate, kept by all that they depend on: the file's content, the thresholds, the code that looks.

Onboarding asks the gate before somebody is registered, and ingest asks again. Looking takes seconds to a minute.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gensync_core.artefacts import read_json, sha256_of, write_json
from gensync_core.errors import ArtefactBroken
from gensync_core.footage.findings import FaceBox, FaceSample, Finding
from gensync_core.footage.gate_params import GateParams
from gensync_core.footage.gate_report import GateReport
from gensync_core.media.video import Probe


def check_once(path: Path, params: GateParams, folder: Path, code: str, sha256: str | None = None) -> GateReport:
    """As `check_footage`, without looking again at what was judged before.

    Args:
        path: any file.
        params: thresholds.
        folder: where reports are kept; it may be deleted at any time.
        code: digest of the code that looks.
        sha256: of the file, where it is known; footage may be gigabytes.
    """
    try:
        content = sha256 or sha256_of(path)
    except OSError:
        return _look(path, params)
    key = hashlib.sha256(json.dumps([content, asdict(params), code], sort_keys=True).encode()).hexdigest()[:32]
    kept = folder / f"{key}.json"
    try:
        return _report(path, read_json(kept))
    except (ArtefactBroken, KeyError, TypeError):  # none yet, or a damaged one
        report = _look(path, params)
    write_json(kept, _plain(report))
    return report


def _look(path: Path, params: GateParams) -> GateReport:
    from gensync_core.footage.gate import check_footage  # with torch and mediapipe, which a kept report can do without

    return check_footage(path, params)


def _plain(report: GateReport) -> dict[str, Any]:
    return {
        "findings": [finding.to_json() for finding in report.findings],
        "probe": None if report.probe is None else asdict(report.probe),
        "samples": [asdict(sample) for sample in report.samples],
        "sound_late_s": report.sound_late_s,
    }


def _report(path: Path, plain: dict[str, Any]) -> GateReport:
    findings = [Finding(**{**finding, "seconds": tuple(finding["seconds"])}) for finding in plain["findings"]]
    samples = [FaceSample(sample["time_s"], tuple(FaceBox(**face) for face in sample["faces"])) for sample in plain["samples"]]
    probe = None if plain["probe"] is None else Probe(**plain["probe"])
    return GateReport(path, tuple(findings), probe, tuple(samples), plain["sound_late_s"])
