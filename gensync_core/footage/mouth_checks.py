"""Checks of the speaker's mouth, of how the head is held, and of how late the sound is; to add one, name it at the end."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from jaxtyping import Bool

from gensync_core.footage.findings import Finding, first_times
from gensync_core.footage.gate_params import MouthParams
from gensync_core.footage.mouth_scan import MouthFacts
from gensync_core.footage.sound_offset import SoundOffset
from gensync_core.media.clip_cutting import FPS

_MIN_SPEECH_FRAMES: Final = 2 * FPS
_ALWAYS: Final = 0.9


MouthCheck = Callable[[MouthFacts, MouthParams], Iterator[Finding]]


def stays_in_the_picture(facts: MouthFacts, params: MouthParams) -> Iterator[Finding]:
    """`face_leaves_frame`: by landmarks where the mouth was watched, by the detector's box in all of the footage."""
    watched, sampled = facts.beyond > params.max_beyond, facts.sampled_beyond > params.max_beyond
    share = max(_share(watched, np.isfinite(facts.beyond)), _share(sampled, np.isfinite(facts.sampled_beyond)))
    if share > params.worth_a_warning:
        rejected = share > params.max_share
        advice = (
            "frame the whole head with room around it" if rejected else "cut those parts out, or frame the head with more room"
        )
        yield Finding(
            "face_leaves_frame",
            "reject" if rejected else "warn",
            f"the face is cut off by the picture's border in {share:.0%} of it; {advice}",
            _starts(np.concatenate([facts.times_s[watched], facts.sampled_s[sampled]])),
        )


def faces_the_camera(facts: MouthFacts, params: MouthParams) -> Iterator[Finding]:
    """`turned_away`."""
    turned = (np.abs(facts.yaw_deg) > params.max_yaw_deg) | (np.abs(facts.pitch_deg) > params.max_pitch_deg)
    share = _share(turned, np.isfinite(facts.yaw_deg))
    if share > params.worth_a_warning:
        rejected = share > params.max_share
        advice = (
            "record the speaker from the front" if rejected else "cut those parts out, or record the speaker from the front"
        )
        yield Finding(
            "turned_away",
            "reject" if rejected else "warn",
            f"the head is turned away from the camera in {share:.0%} of it; {advice}",
            _starts(facts.times_s[turned]),
        )


def shows_the_mouth(facts: MouthFacts, params: MouthParams) -> Iterator[Finding]:
    """`mouth_hidden`: where lips should be is nothing of their colour. Blind in black and white, and to what is as red."""
    hidden = _hidden(facts, params)
    if hidden.any():
        yield Finding(
            "mouth_hidden",
            "warn",
            f"something seems to cover the mouth for {hidden.sum() / FPS:.1f} s (a hand, a microphone?); "
            "cut those parts out, or keep the mouth free",
            _starts(facts.times_s[hidden]),
        )


def moves_the_mouth(facts: MouthFacts, params: MouthParams) -> Iterator[Finding]:
    """`mouth_static`: no motion of the lips in 2 s of speech."""
    visible = facts.spoken & np.isfinite(facts.aperture)
    judged, still = _still(facts, visible, params)
    if not judged.any():
        return
    if _share(still, judged) >= _ALWAYS:
        yield Finding(
            "mouth_static",
            "reject",
            "the mouth does not move while speech is heard; give footage of the person who speaks (no photo, no voice-over)",
            _starts(facts.times_s[still]),
        )
        return
    _, still = _still(facts, visible & ~_hidden(facts, params), params)
    if still.any():
        yield Finding(
            "mouth_static",
            "warn",
            f"the mouth does not move in {still.sum() / FPS:.1f} s in which speech is heard (another person's voice?); "
            "cut those parts out",
            _starts(facts.times_s[still]),
        )


def sounds_in_time(facts: MouthFacts, params: MouthParams) -> Iterator[Finding]:
    """`audio_late` and `audio_early`: `fixed` where certain, and then the sound is shifted by `facts.offset.seconds`."""
    offset = facts.offset
    if offset is None or not _is_large(offset, params) or offset.certainty < params.min_certainty:
        return
    late = offset.seconds > 0
    size = f"the sound is {'late' if late else 'early'} by {abs(offset.seconds):.2f} s"
    certain = _is_certain(offset, params)
    yield Finding(
        "audio_late" if late else "audio_early",
        "fixed" if certain else "warn",
        f"{size}; shifted" if certain else f"{size}, as far as can be told; compare lips and sound, and export them in sync",
    )


def shift_s(facts: MouthFacts, params: MouthParams) -> float:
    """By how much the sound is late and to be shifted forward, in seconds: 0 unless `sounds_in_time` says `fixed`."""
    offset = facts.offset
    return offset.seconds if offset is not None and _is_large(offset, params) and _is_certain(offset, params) else 0.0


def _is_large(offset: SoundOffset, params: MouthParams) -> bool:
    return abs(offset.seconds) >= params.min_offset_s


def _is_certain(offset: SoundOffset, params: MouthParams) -> bool:
    return offset.certainty >= params.min_certainty_shift


def _hidden(facts: MouthFacts, params: MouthParams) -> Bool[np.ndarray, "T"]:
    chroma = facts.skin_chroma[np.isfinite(facts.skin_chroma)]
    if not len(chroma) or float(np.median(chroma)) < params.min_skin_chroma:
        return np.zeros(len(facts.times_s), dtype=bool)
    return _lasting(facts.lip_redness < params.min_lip_redness, facts.times_s, round(params.min_hidden_s * FPS))


def _still(
    facts: MouthFacts, usable: Bool[np.ndarray, "T"], params: MouthParams
) -> tuple[Bool[np.ndarray, "T"], Bool[np.ndarray, "T"]]:
    """Frames within 2 s of uninterrupted use, and those of them in which nothing moves all the while."""
    judged = np.zeros(len(usable), dtype=bool)
    still = judged.copy()
    for start in range(len(judged) - _MIN_SPEECH_FRAMES + 1):
        span = slice(start, start + _MIN_SPEECH_FRAMES)
        if usable[span].all() and _is_unbroken(facts.times_s[span]):
            judged[span] = True
            if facts.aperture[span].std() < params.min_motion:
                still[span] = True
    return judged, still


def _is_unbroken(times_s: np.ndarray) -> bool:
    return bool(times_s[-1] - times_s[0] < (len(times_s) - 0.5) / FPS)


def _lasting(flags: np.ndarray, times_s: np.ndarray, num_frames: int) -> Bool[np.ndarray, "T"]:
    """Runs of at least so many frames in a row."""
    kept = np.zeros(len(flags), dtype=bool)
    breaks = np.flatnonzero((np.diff(flags.astype(int)) != 0) | (np.diff(times_s) > 1.5 / FPS)) + 1
    for run in np.split(np.arange(len(flags)), breaks):
        if len(run) >= max(num_frames, 1) and flags[run[0]]:
            kept[run] = True
    return kept


def _share(flags: np.ndarray, known: np.ndarray) -> float:
    return float((flags & known).sum() / known.sum()) if known.any() else 0.0


def _starts(times_s: np.ndarray) -> tuple[float, ...]:
    """Where it begins, to the second: one time for each spell."""
    seconds = np.unique(np.floor(times_s))
    begins = seconds[np.diff(seconds, prepend=-2.0) > 1]
    return first_times(float(second) for second in begins)


MOUTH_CHECKS: Final[tuple[MouthCheck, ...]] = (
    stays_in_the_picture,
    faces_the_camera,
    shows_the_mouth,
    moves_the_mouth,
    sounds_in_time,
)
