"""Groups that a newcomer can be put into, as an option of commands."""

import enum


class Group(enum.StrEnum):
    """`auto`: the cohort as long as no shared model exists."""

    AUTO = "auto"
    COHORT = "cohort"
    ADAPTED = "adapted"
