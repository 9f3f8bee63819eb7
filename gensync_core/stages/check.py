"""check: is this footage fit for use? Writes nothing."""

from pathlib import Path

from gensync_core.footage.gate import GateReport, check_footage
from gensync_core.params import Params


def check(path: Path, params: Params) -> GateReport:
    """What the footage gate finds in any file; bad footage is a finding, not an error."""
    return check_footage(path, params.gate)
