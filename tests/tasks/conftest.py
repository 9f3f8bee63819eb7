"""An inbox of a toy project."""

from pathlib import Path

import pytest
from made_up_inbox import HASTY

from gensync_core.paths import Project
from tasks.inbox import Desk
from tasks.inbox_places import open_inbox


@pytest.fixture
def desk(toy: Project, tmp_path: Path) -> Desk:
    """An inbox that is a folder, for which nothing has to settle."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return Desk(project=toy, inbox=open_inbox(str(folder)), settings=HASTY)


@pytest.fixture
def onboarded() -> list[str]:
    """Speakers, in the order in which they were onboarded."""
    return []
