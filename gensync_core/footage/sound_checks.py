"""Checks of what is heard; to add one, name it in the list at the end."""

from collections.abc import Callable, Iterator
from typing import Final

from gensync_core.footage.findings import Finding, first_times
from gensync_core.footage.gate_params import SoundParams
from gensync_core.footage.sound_scan import SoundFacts
from gensync_core.footage.time_spans import TimeSpan, joined, total_seconds
from gensync_core.footage.tone_steadiness import BLOCK_S, BLOCK_STEP_S


def is_heard(facts: SoundFacts, params: SoundParams) -> Iterator[Finding]:
    """`silent_audio`: a track without sound in it; nothing else is said of such a one."""
    if _is_silent(facts, params):
        yield Finding(
            "silent_audio",
            "reject",
            f"its sound track is silent ({facts.loudest_dbfs:.0f} dBFS in its loudest second); "
            "see which microphone or which track was recorded, and give footage in which the speaker is heard",
        )


def has_enough_speech(facts: SoundFacts, params: SoundParams) -> Iterator[Finding]:
    """`little_speech`."""
    if _is_silent(facts, params):
        return
    share = facts.speech_share
    if facts.speech_s < params.min_speech_s or share < params.min_speech_share:
        yield Finding(
            "little_speech",
            "reject",
            f"hardly any speech is heard ({facts.speech_s:.1f} s of {facts.seconds:.1f} s); the mouth is learnt from speech, "
            "so give footage in which the speaker talks most of the time",
            first_times(start_s for start_s, _ in facts.speech),
        )
    elif share < params.good_speech_share:
        yield Finding(
            "little_speech",
            "warn",
            f"speech is heard in {share:.0%} of it only ({facts.speech_s:.1f} s); the mouth is learnt from speech, "
            "so cut long silences, or record more talk",
            first_times(start_s for start_s, _ in facts.speech),
        )


def is_loud_enough(facts: SoundFacts, params: SoundParams) -> Iterator[Finding]:
    """`quiet_audio`."""
    if not _is_silent(facts, params) and facts.speech_dbfs is not None and facts.speech_dbfs < params.quiet_dbfs:
        yield Finding(
            "quiet_audio",
            "warn",
            f"the speech is quiet ({facts.speech_dbfs:.0f} dBFS, -30 to -15 is usual); "
            "raise the recording level, or speak closer to the microphone",
        )


def is_not_overdriven(facts: SoundFacts, params: SoundParams) -> Iterator[Finding]:
    """`clipped_audio`."""
    found = [second for second, share in enumerate(facts.overdriven) if share > params.max_overdriven]
    if found and len(found) > params.max_overdriven_seconds * len(facts.overdriven):
        yield Finding(
            "clipped_audio",
            "warn",
            f"the sound is overdriven in {len(found)} of {len(facts.overdriven)} s: its peaks are cut off; "
            "record at a lower level (making it quieter afterwards does not help)",
            first_times(round(facts.start_s + second, 3) for second in found),
        )


def stands_out_from_background(facts: SoundFacts, params: SoundParams) -> Iterator[Finding]:
    """`noisy_audio`; where the pauses are full of music, `music` says so."""
    if _is_silent(facts, params) or facts.speech_dbfs is None or _has_music(facts, params):
        return
    distance_db = facts.speech_dbfs - facts.background_dbfs
    if distance_db < params.min_speech_over_background_db:
        yield Finding(
            "noisy_audio",
            "warn",
            f"the speech is only {distance_db:.0f} dB louder than what is heard in its pauses; "
            "record in a quieter place or closer to the microphone, or take noise out of the sound first",
        )


def has_no_music(facts: SoundFacts, params: SoundParams) -> Iterator[Finding]:
    """`music`: held notes, under speech or without it; a hum or an alarm is told alike."""
    if not _is_silent(facts, params) and _has_music(facts, params):
        spans = _music_spans(facts, params)
        yield Finding(
            "music",
            "warn",
            f"music or another held tone (a hum, an alarm) is heard in about {total_seconds(spans):.0f} s of it; "
            "the mouth would learn to move with it, so give the speech without it",
            first_times(span.start_s for span in spans),
        )


def _is_silent(facts: SoundFacts, params: SoundParams) -> bool:
    return facts.loudest_dbfs < params.silent_dbfs


def _music_spans(facts: SoundFacts, params: SoundParams) -> list[TimeSpan]:
    blocks = []
    for block, steadiness in enumerate(facts.steadiness):
        if steadiness > params.music_steadiness:
            start_s = round(facts.start_s + block * BLOCK_STEP_S, 3)
            blocks.append(TimeSpan(start_s, round(start_s + BLOCK_S, 3)))
    return joined(blocks, gap_s=0.0)


def _has_music(facts: SoundFacts, params: SoundParams) -> bool:
    return total_seconds(_music_spans(facts, params)) > params.max_music * facts.seconds


SOUND_CHECKS: Final[tuple[Callable[[SoundFacts, SoundParams], Iterator[Finding]], ...]] = (
    is_heard,
    has_enough_speech,
    is_loud_enough,
    is_not_overdriven,
    stands_out_from_background,
    has_no_music,
)
