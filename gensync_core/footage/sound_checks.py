"""Checks of what is heard; to add one, name it in the list at the end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from gensync_core.footage.findings import Finding, first_times
from gensync_core.footage.sound_scan import SoundFacts
from gensync_core.footage.time_spans import TimeSpan, joined, total_seconds
from gensync_core.footage.tone_steadiness import BLOCK_S, BLOCK_STEP_S


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundParams:
    """What the sound must be like.

    Attributes:
        silent_dbfs: level of the loudest second, below which the sound track is silent.
        min_speech_s: of speech.
        min_speech_share: seconds of speech over seconds of sound, below which there is practically none.
        good_speech_share: likewise, below which most of the footage teaches nothing.
        quiet_dbfs: level of the speech, below which it is quiet.
        min_speech_over_background_db: level of the speech over that of the pauses.
        max_overdriven: share of the samples of a second at full scale, beyond which that second is overdriven.
        max_overdriven_seconds: share of the seconds that may be overdriven.
        music_steadiness: beyond this, 2.56 s sound like music: see `footage.tone_steadiness`.
        max_music: share of the footage that may sound like music.
    """

    silent_dbfs: float | int = -65.0
    min_speech_s: float | int = 1.0
    min_speech_share: float | int = 0.02
    good_speech_share: float | int = 0.3
    quiet_dbfs: float | int = -42.0
    min_speech_over_background_db: float | int = 12.0
    max_overdriven: float | int = 1.0e-3
    max_overdriven_seconds: float | int = 0.05
    music_steadiness: float | int = 0.42
    max_music: float | int = 0.1

    def __post_init__(self) -> None:
        for name in ("min_speech_share", "good_speech_share", "max_overdriven", "max_overdriven_seconds", "max_music"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.sound.{name} is {getattr(self, name)}, expected 0 to 1")
        if self.min_speech_share > self.good_speech_share:
            raise ValueError(
                f"gate.sound.min_speech_share is {self.min_speech_share}, expected at most gate.sound.good_speech_share"
            )
        if not -100 < self.silent_dbfs < self.quiet_dbfs <= 0:
            raise ValueError(
                f"gate.sound.silent_dbfs is {self.silent_dbfs} and gate.sound.quiet_dbfs {self.quiet_dbfs}, "
                "expected -100 < silent_dbfs < quiet_dbfs <= 0"
            )
        if self.min_speech_s < 0:
            raise ValueError(f"gate.sound.min_speech_s is {self.min_speech_s}, expected at least 0")
        if not 0 <= self.min_speech_over_background_db <= 60:
            raise ValueError(
                f"gate.sound.min_speech_over_background_db must be 0 to 60, not {self.min_speech_over_background_db}"
            )
        if not 0 < self.music_steadiness <= 5:
            raise ValueError(f"gate.sound.music_steadiness is {self.music_steadiness}, expected more than 0 and at most 5")


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
