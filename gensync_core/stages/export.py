"""export: a speaker's head as a `.ply` that splat viewers open."""

from pathlib import Path

from gensync_core.gaussians.ply import write_ply
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.paths import Project


def export(project: Project, speaker_id: str, out: Path) -> int:
    """Write the speaker's head (canonical frame, decimetre, at rest) and return the number of Gaussians.

    Raises:
        UsageError: unknown speaker.
        ArtefactBroken: the speaker has no model yet, or it is damaged.
    """
    paths = project.speaker(project.registry().get(speaker_id))
    source = paths.model if paths.model.exists() else paths.coarse
    head = SpeakerState.load(source).head
    write_ply(out, head)
    return len(head.means)
