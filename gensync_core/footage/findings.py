"""What the footage gate looks at (`Footage`), and what it says (`Finding`)."""

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from gensync_core.media.probe import Probe

_MOST_SECONDS_NAMED: Final = 20

Severity = Literal["reject", "fixed", "warn"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: short name, for programs.
        severity: `reject`, `fixed` or `warn`.
        message: what it is and what a person can do about it.
        seconds: where in the footage, from its beginning; empty: everywhere, or nowhere in particular.
    """

    code: str
    severity: Severity
    message: str
    seconds: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As written into `clip.json`."""
        return {**asdict(self), "seconds": list(self.seconds)}


def first_times(times_s: Iterable[float]) -> tuple[float, ...]:
    """As many as a finding names."""
    return tuple(itertools.islice(times_s, _MOST_SECONDS_NAMED))


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A face in px of the footage as shown: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class FaceSample:
    """The people in one frame, `time_s` after the first; passers-by and posters aside, largest first."""

    time_s: float
    faces: tuple[FaceBox, ...]


def largest_faces(samples: Iterable[FaceSample]) -> list[FaceBox]:
    """The largest face of every sampled frame that shows one: the speaker's."""
    return [sample.faces[0] for sample in samples if sample.faces]


@dataclass(frozen=True, slots=True)
class Footage:
    """What the checks look at. `samples` is empty until faces have been counted."""

    path: Path
    probe: Probe
    samples: tuple[FaceSample, ...] = ()
