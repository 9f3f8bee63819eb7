"""Checks of what a file holds, by its packets alone; to add one, name it in the list at the end."""

from collections.abc import Iterator
from typing import Final

from gensync_core.footage.findings import Finding, Footage
from gensync_core.footage.gate_params import Check, GateParams
from gensync_core.media.clip_cutting import FPS, MAX_GAP_S, shared_span

_CONTAINERS_THAT_TELL_LENGTH: Final = ("mov", "matroska", "avi")
_FEW_MISSING_FRAMES: Final = 2


def has_pictures(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`no_video`: sound alone, or nothing that was recognised."""
    if not footage.probe.has_video:
        yield Finding("no_video", "reject", "holds no pictures; give a video in which the speaker is seen")


def has_sound(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`no_audio`."""
    if not footage.probe.has_audio:
        yield Finding(
            "no_audio", "reject", "has no sound track; the mouth is learnt from speech, so record or export with sound"
        )


def is_whole(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`truncated`: fewer frames or seconds than the file's own header promises."""
    found = footage.probe
    tolerated = 1 - params.max_missing
    tells_length = any(name in found.container for name in _CONTAINERS_THAT_TELL_LENGTH)
    shorter = tells_length and found.reached_s < tolerated * found.promised_s
    fewer = found.promised_frames - found.num_frames > max(_FEW_MISSING_FRAMES, params.max_missing * found.promised_frames)
    # Index and clock must agree: an index may count frames that are never shown, a clock may belong to other streams.
    if shorter and (fewer or found.promised_frames == 0):
        yield Finding(
            "truncated",
            "reject",
            f"ends after {found.reached_s:.1f} s of the {found.promised_s:.1f} s that its header promises; "
            "copy or download it again",
            (round(found.reached_s, 2),),
        )


def is_long_enough(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`too_short`, counted where there are both pictures and sound; `too_long`."""
    found = footage.probe
    if not (found.has_video and found.has_audio):
        return
    span = shared_span(found)
    seconds = span.end_s - span.start_s
    if seconds < params.min_seconds:
        yield Finding(
            "too_short",
            "reject",
            f"has {seconds:.1f} s of pictures with sound, at least {params.min_seconds:g} s are needed "
            "(a minute or more gives a good avatar)",
        )
    if found.duration_s > params.max_seconds:
        yield Finding(
            "too_long",
            "reject",
            f"lasts {found.duration_s:.0f} s, at most {params.max_seconds:g} s are taken; cut a part of it",
        )


def has_fit_size(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`too_small` and `too_many_pixels`."""
    found = footage.probe
    if not found.has_video:
        return
    size = f"{found.width}x{found.height} px"
    if min(found.width, found.height) < params.min_side_px:
        yield Finding("too_small", "reject", f"shows {size}, at least {params.min_side_px} px a side are needed")
    if found.width * found.height > params.max_pixels:
        yield Finding("too_many_pixels", "reject", f"shows {size}, more than is decoded; scale it down to 3840x2160 or less")


def has_fit_rate(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`variable_frame_rate`, `frame_rate_resampled` and `low_frame_rate`."""
    found = footage.probe
    if found.num_frames < 2:
        return
    if found.variable_rate:
        yield Finding(
            "variable_frame_rate",
            "fixed",
            f"has a variable frame rate ({found.avg_fps:.1f} fps on average); taken at a constant {FPS} fps, "
            "each frame where it was shown",
        )
    elif abs(found.avg_fps - FPS) > 0.01:
        yield Finding("frame_rate_resampled", "fixed", f"has {found.avg_fps:.4g} fps; taken at {FPS} fps")
    if found.avg_fps < params.good_fps:
        severity = "reject" if found.avg_fps < params.min_fps else "warn"
        yield Finding(
            "low_frame_rate",
            severity,
            f"shows {found.avg_fps:.1f} frames a second, too few to see the mouth move; record at {FPS} or more",
        )


def is_upright(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`rotated`: the file asks for a turn that players apply."""
    turn = footage.probe.rotation_deg % 360
    if footage.probe.has_video and turn:
        yield Finding("rotated", "fixed", f"asks to be turned by {turn} degrees when shown; turned")


def has_equal_lengths(footage: Footage, params: GateParams) -> Iterator[Finding]:
    """`audio_longer_than_video` and `video_longer_than_audio`."""
    found = footage.probe
    if not (found.has_video and found.has_audio):
        return
    before_s, after_s = found.video_start_s - found.audio_start_s, found.audio_end_s - found.video_end_s
    for code, longer, shorter, gaps_s in (
        ("audio_longer_than_video", "sound", "pictures", (before_s, after_s)),
        ("video_longer_than_audio", "pictures", "sound", (-before_s, -after_s)),
    ):
        surplus_s = sum(gap_s for gap_s in gaps_s if gap_s > MAX_GAP_S)
        if surplus_s > 0:
            places = [
                (gaps_s[0], f"{gaps_s[0]:.2f} s at the beginning"),
                (gaps_s[1], f"{gaps_s[1]:.2f} s at the end"),
            ]
            where = " and ".join(text for gap_s, text in places if gap_s > MAX_GAP_S)
            yield Finding(code, "fixed", f"has {longer} without {shorter}, {where}; the {longer} trimmed to the {shorter}")


STREAM_CHECKS: Final[tuple[Check, ...]] = (
    has_pictures,
    has_sound,
    is_whole,
    is_long_enough,
    has_fit_size,
    has_fit_rate,
    is_upright,
    has_equal_lengths,
)
