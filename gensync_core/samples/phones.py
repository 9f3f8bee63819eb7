"""A small invented language: phones with their sound and their mouth, and random talk made of them.

Source: own choice; formants after Peterson and Barney (1952), rounded.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

_SYLLABLES_PER_PHRASE = (5, 11)
_PAUSE_S = (0.25, 0.6)
_CODA_SHARE = 0.25
_LONG_SYLLABLE = 1.35


@dataclass(frozen=True, kw_only=True, slots=True)
class Phone:
    """One speech sound.

    Attributes:
        name: what it is written as.
        formants_hz: the first three resonances of an average vocal tract.
        voicing: loudness of the voice, 0 to 1.
        hiss: loudness of friction, 0 to 1, around `hiss_hz`.
        aperture: inner-lip distance over inter-ocular distance; below 0 where the lips press together.
        width: corners of the mouth, -1 rounded to 1 spread.
        duration_s: shortest and longest.
    """

    name: str
    formants_hz: tuple[float, float, float]
    voicing: float
    aperture: float
    width: float
    duration_s: tuple[float, float]
    hiss: float = 0.0
    hiss_hz: float = 4000.0


VOWELS = (
    Phone(name="a", formants_hz=(750.0, 1250.0, 2500.0), voicing=1.0, aperture=0.34, width=0.1, duration_s=(0.12, 0.2)),
    Phone(name="e", formants_hz=(530.0, 1850.0, 2500.0), voicing=0.95, aperture=0.20, width=0.5, duration_s=(0.1, 0.18)),
    Phone(name="i", formants_hz=(290.0, 2250.0, 3000.0), voicing=0.85, aperture=0.09, width=1.0, duration_s=(0.09, 0.16)),
    Phone(name="o", formants_hz=(480.0, 880.0, 2450.0), voicing=0.95, aperture=0.23, width=-0.6, duration_s=(0.1, 0.18)),
    Phone(name="u", formants_hz=(310.0, 720.0, 2300.0), voicing=0.8, aperture=0.08, width=-1.0, duration_s=(0.1, 0.16)),
)
CONSONANTS = (
    Phone(name="m", formants_hz=(260.0, 1050.0, 2200.0), voicing=0.35, aperture=-0.10, width=0.0, duration_s=(0.08, 0.11)),
    Phone(name="b", formants_hz=(250.0, 850.0, 2200.0), voicing=0.12, aperture=-0.12, width=0.0, duration_s=(0.08, 0.11)),
    Phone(name="p", formants_hz=(400.0, 900.0, 2300.0), voicing=0.0, aperture=-0.12, width=0.0, duration_s=(0.09, 0.12)),
    Phone(
        name="f",
        formants_hz=(350.0, 1100.0, 2300.0),
        voicing=0.0,
        aperture=0.02,
        width=0.2,
        duration_s=(0.09, 0.13),
        hiss=0.12,
        hiss_hz=5200.0,
    ),
    Phone(
        name="s",
        formants_hz=(320.0, 1500.0, 2600.0),
        voicing=0.0,
        aperture=0.05,
        width=0.4,
        duration_s=(0.09, 0.14),
        hiss=0.3,
        hiss_hz=6300.0,
    ),
    Phone(
        name="sh",
        formants_hz=(320.0, 1600.0, 2500.0),
        voicing=0.0,
        aperture=0.07,
        width=-0.6,
        duration_s=(0.09, 0.14),
        hiss=0.4,
        hiss_hz=3000.0,
    ),
    Phone(name="l", formants_hz=(360.0, 1250.0, 2700.0), voicing=0.55, aperture=0.14, width=0.2, duration_s=(0.06, 0.09)),
    Phone(name="n", formants_hz=(270.0, 1600.0, 2600.0), voicing=0.4, aperture=0.07, width=0.2, duration_s=(0.06, 0.09)),
)
PAUSE = Phone(name="-", formants_hz=(500.0, 1500.0, 2500.0), voicing=0.0, aperture=-0.04, width=0.0, duration_s=_PAUSE_S)


class Spoken(NamedTuple):
    """A phone in time. `accent` raises the pitch of its syllable, -1 to 1; `phrase_share` runs from 0 to 1 in a phrase."""

    phone: Phone
    start_s: float
    stop_s: float
    accent: float
    phrase_share: float


@dataclass(kw_only=True, slots=True)
class Talk:
    """Phones one after another, without gaps."""

    spoken: list[Spoken] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """End of the last phone."""
        return self.spoken[-1].stop_s if self.spoken else 0.0

    def add(self, phone: Phone, duration_s: float, accent: float = 0.0, phrase_share: float = 0.0) -> None:
        """Append one phone."""
        start_s = self.duration_s
        self.spoken.append(Spoken(phone, start_s, start_s + duration_s, accent, phrase_share))


def random_talk(seconds: float, generator: np.random.Generator, rate: float = 1.0) -> Talk:
    """Phrases of 5 to 11 syllables at 3 to 5 syllables a second, with pauses, until `seconds` are full.

    Vowels follow each other in shuffled rounds, consonants too: each comes up about equally often in any few seconds.
    """
    talk = Talk()
    talk.add(PAUSE, 0.3)
    vowels, consonants = _Rounds(VOWELS, generator), _Rounds(CONSONANTS, generator)
    while talk.duration_s < seconds:
        num_syllables = int(generator.integers(*_SYLLABLES_PER_PHRASE, endpoint=True))
        for index in range(num_syllables):
            share, accent = index / num_syllables, float(generator.uniform(-1, 1))
            stretch = (_LONG_SYLLABLE if index == num_syllables - 1 else 1.0) / rate
            syllable = [consonants.next(), vowels.next()]
            if generator.random() < _CODA_SHARE:
                syllable.append(consonants.next())
            for phone in syllable:
                talk.add(phone, float(generator.uniform(*phone.duration_s)) * stretch, accent, share)
        talk.add(PAUSE, float(generator.uniform(*_PAUSE_S)))
    return talk


class _Rounds:
    """Every phone once in random order, then again."""

    def __init__(self, phones: tuple[Phone, ...], generator: np.random.Generator) -> None:
        self._phones, self._generator, self._left = phones, generator, []

    def next(self) -> Phone:
        if not self._left:
            self._left = [self._phones[index] for index in self._generator.permutation(len(self._phones))]
        return self._left.pop()
