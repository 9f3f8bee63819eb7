"""The errors a person can act on; each carries the exit code of the command line.

A message says what is wrong, where (file, second of the clip) and what to do about it.
"""


class GenSyncError(Exception):
    """Any failure that is explained to the user in one line rather than with a traceback."""

    exit_code = 1


class UsageError(GenSyncError):
    """The command was called with arguments that cannot work (an id that exists, an unknown speaker)."""

    exit_code = 2


class FootageRejected(GenSyncError):
    """Footage or another input file is not fit for use."""

    exit_code = 3


class ArtefactBroken(GenSyncError):
    """A file that a stage wrote is missing, damaged or of an unknown schema version."""

    exit_code = 4


class AssetMissing(GenSyncError):
    """A pretrained part was found nowhere; the message lists where it was looked for and how to get it."""


class TrainingFailed(GenSyncError):
    """Training could not reach a usable result (for example a loss that stays NaN)."""


EXIT_CODES: dict[str, int] = {
    "done": 0,
    "other": GenSyncError.exit_code,
    "usage": UsageError.exit_code,
    "rejected": FootageRejected.exit_code,
    "broken": ArtefactBroken.exit_code,
}
