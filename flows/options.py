"""What several commands take: the project, machine-readable output, the group of a newcomer."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from gensync_core.paths import Project
from tasks.workspace import find_project

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


class Group(enum.StrEnum):
    """`auto`: the cohort as long as no shared model exists."""

    AUTO = "auto"
    COHORT = "cohort"
    ADAPTED = "adapted"


def project_of(context: typer.Context) -> Project:
    """The project that a command works in.

    Raises:
        UsageError: there is none.
    """
    return find_project(context.obj or Path.cwd())
