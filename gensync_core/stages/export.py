"""export: a speaker's head as a file that splat viewers open."""

from pathlib import Path

from gensync_core.gaussians.splat_file import write_splats
from gensync_core.model.speaker_state import SpeakerState
from gensync_core.paths import Project


def export(project: Project, speaker_id: str, out: Path, form: str = "ply") -> int:
    """Write the speaker's head (canonical frame, decimetre, at rest) and return the number of Gaussians written.

    `form` is one of `gaussians.splat_file.FORMATS`.

    Raises:
        UsageError: unknown speaker.
        ArtefactBroken: the speaker has no model yet, or it is damaged.
    """
    paths = project.speaker(project.registry().get(speaker_id))
    source = paths.model if paths.model.exists() else paths.coarse
    return write_splats(out, SpeakerState.load(source).head, form)
