"""Checks of the people in the sampled frames; to add one, name it in the list at the end."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from gensync_core.footage.findings import FaceSample, Finding, Footage, first_times, largest_faces
from gensync_core.footage.gate_params import Check, GateParams

_WORTH_A_WARNING: Final = 0.05


def shows_somebody(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`no_face`."""
    empty = [sample for sample in footage.samples if not sample.faces]
    share = len(empty) / max(len(footage.samples), 1)
    if share > params.max_without_face or len(empty) == len(footage.samples):
        yield Finding(
            "no_face",
            "reject",
            f"no face is seen in {share:.0%} of it; give footage of one person who faces the camera",
            _seconds(empty),
        )
    elif share > _WORTH_A_WARNING:
        yield Finding(
            "no_face", "warn", f"no face is seen in {share:.0%} of it; cut those parts out if you can", _seconds(empty)
        )


def shows_one_person(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`several_faces`."""
    crowded = [sample for sample in footage.samples if len(sample.faces) > 1]
    share = len(crowded) / max(len(footage.samples), 1)
    if share > params.max_several_faces:
        yield Finding(
            "several_faces",
            "reject",
            f"several people are seen in {share:.0%} of it; crop or cut the footage to one speaker",
            _seconds(crowded),
        )
    elif share > _WORTH_A_WARNING:
        yield Finding(
            "several_faces",
            "warn",
            f"several people are seen in {share:.0%} of it; the largest face is taken",
            _seconds(crowded),
        )


def shows_face_large_enough(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`face_too_small`."""
    heights_px = [face.h for face in largest_faces(footage.samples)]
    if heights_px and float(np.median(heights_px)) < params.min_face_px:
        yield Finding(
            "face_too_small",
            "reject",
            f"the face is {np.median(heights_px):.0f} px high, at least {params.min_face_px} px are needed; "
            "record closer or at a higher resolution",
        )


def _seconds(samples: list[FaceSample]) -> tuple[float, ...]:
    return first_times(sample.time_s for sample in samples)


FACE_CHECKS: Final[tuple[Check, ...]] = (shows_somebody, shows_one_person, shows_face_large_enough)
