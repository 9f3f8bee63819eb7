"""check: is this footage fit for use? What was found is kept, so that ingest need not look again."""

from pathlib import Path

from gensync_core.evaluation.provenance import code_digest
from gensync_core.footage.gate import check_footage
from gensync_core.footage.gate_report import GateReport
from gensync_core.footage.kept_reports import check_once
from gensync_core.params import Params
from gensync_core.paths import Project


def check(project: Project, path: Path, params: Params) -> GateReport:
    """What the footage gate finds in any file; bad footage is a finding, not an error. Outside of a project nothing is kept."""
    if not project.params_file.exists():
        return check_footage(path, params.gate)
    return check_once(path, params.gate, project.gate_reports, code_digest())
