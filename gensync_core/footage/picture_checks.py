"""Checks of what the pictures are like; to add one, name it in the list at the end."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from gensync_core.footage.findings import Finding, first_times
from gensync_core.footage.gate_params import PictureParams
from gensync_core.footage.picture_scan import PictureFacts
from gensync_core.footage.time_spans import total_seconds
from gensync_core.media.tone_mapping import HDR_TRANSFERS, needs_tone_mapping


def is_undamaged(facts: PictureFacts, params: PictureParams) -> Iterator[Finding]:
    """`corrupt_video`: the file is whole, but something in it cannot be decoded."""
    lost_s = total_seconds(facts.damaged)
    if not facts.damaged and not facts.decoding_failed:
        return
    much = facts.decoding_failed or lost_s > max(params.max_damaged_s, params.max_damaged * facts.seconds)
    advice = "copy or export it again" if much else "copy or export it again, or cut those parts out"
    yield Finding(
        "corrupt_video",
        "reject" if much else "warn",
        f"is damaged inside: about {lost_s:.1f} s of {facts.seconds:.1f} s cannot be decoded as they were, "
        f"and what follows may be smeared for a while; {advice}",
        first_times(one.start_s for one in facts.damaged),
    )


def has_standard_range(facts: PictureFacts, params: PictureParams) -> Iterator[Finding]:
    """`hdr`."""
    if not needs_tone_mapping(facts.color_transfer):
        return
    kind = "HDR" if facts.color_transfer in HDR_TRANSFERS else "in the wide colours of BT.2020"
    if facts.can_tone_map:
        yield Finding(
            "hdr", "fixed", f"is {kind} ({facts.color_transfer}); mapped to BT.709, recording without HDR shows truer colours"
        )
    else:
        yield Finding(
            "hdr",
            "reject",
            f"is {kind} ({facts.color_transfer}), which this ffmpeg cannot map to BT.709 (it has no zscale); "
            "let GENSYNC_FFMPEG name one that can, or export the footage as SDR",
        )


def is_one_take(facts: PictureFacts, params: PictureParams) -> Iterator[Finding]:
    """`cuts`."""
    num_cuts = len(facts.cuts_s)
    if not num_cuts:
        return
    many = num_cuts > max(params.max_cuts, params.max_cuts_per_minute * facts.seconds / 60)
    what = "one cut" if num_cuts == 1 else f"{num_cuts} cuts"
    advice = (
        "an avatar is learnt from one take: give the longest part without a cut"
        if many
        else "if another scene begins there, give one take only"
    )
    yield Finding(
        "cuts", "reject" if many else "warn", f"has {what} in {facts.seconds:.0f} s; {advice}", first_times(facts.cuts_s)
    )


def is_never_black(facts: PictureFacts, params: PictureParams) -> Iterator[Finding]:
    """`black`."""
    stretches = [one for one in facts.black if one.seconds >= params.min_black_s]
    if stretches:
        total_s = total_seconds(stretches)
        yield Finding(
            "black",
            "reject" if total_s > params.max_black * facts.seconds else "warn",
            f"is black for {total_s:.1f} s; cut those parts out",
            first_times(one.start_s for one in stretches),
        )


def is_never_frozen(facts: PictureFacts, params: PictureParams) -> Iterator[Finding]:
    """`frozen`."""
    stretches = [one for one in facts.still if one.seconds >= params.min_frozen_s]
    if stretches:
        total_s = total_seconds(stretches)
        yield Finding(
            "frozen",
            "reject" if total_s > params.max_frozen * facts.seconds else "warn",
            f"stands still for {total_s:.1f} s while the sound goes on; cut those parts out, or record again where the "
            "connection or the computer keeps up",
            first_times(one.start_s for one in stretches),
        )


def is_sharp(facts: PictureFacts, params: PictureParams) -> Iterator[Finding]:
    """`blurred`: most of the time; a moment of it does no harm."""
    blur = float(np.median([look.blur for look in facts.looks])) if facts.looks else 0.0
    if blur > params.good_blur and not _is_dark(facts, params):
        severe = blur > params.max_blur
        yield Finding(
            "blurred",
            "reject" if severe else "warn",
            f"is blurred (blur of the face {blur:.2f}, sharp below {params.good_blur:g}): focus on the eyes, wipe the lens, "
            "and give the original rather than an enlarged or strongly compressed copy",
            first_times(look.time_s for look in facts.looks if look.blur > params.good_blur),
        )


def is_light_enough(facts: PictureFacts, params: PictureParams) -> Iterator[Finding]:
    """`dark`."""
    if _is_dark(facts, params):
        bright = _median_bright(facts)
        yield Finding(
            "dark",
            "reject" if bright < params.min_bright else "warn",
            f"the face is dark (its highlights reach {bright:.0f} of 255, at least {params.good_bright:g} are wanted); "
            "put more light in front of the speaker",
            first_times(look.time_s for look in facts.looks if look.bright < params.good_bright),
        )


def is_not_overexposed(facts: PictureFacts, params: PictureParams) -> Iterator[Finding]:
    """`overexposed`."""
    clipped = float(np.median([look.clipped for look in facts.looks])) if facts.looks else 0.0
    if clipped > params.good_clipped:
        yield Finding(
            "overexposed",
            "reject" if clipped > params.max_clipped else "warn",
            f"{clipped:.0%} of the face is white without detail; take light away or lower the camera's exposure",
            first_times(look.time_s for look in facts.looks if look.clipped > params.good_clipped),
        )


def _median_bright(facts: PictureFacts) -> float:
    return float(np.median([look.bright for look in facts.looks])) if facts.looks else 255.0


def _is_dark(facts: PictureFacts, params: PictureParams) -> bool:
    return _median_bright(facts) < params.good_bright


PICTURE_CHECKS: Final[tuple[Callable[[PictureFacts, PictureParams], Iterator[Finding]], ...]] = (
    is_undamaged,
    has_standard_range,
    is_one_take,
    is_never_black,
    is_never_frozen,
    is_sharp,
    is_light_enough,
    is_not_overexposed,
)
