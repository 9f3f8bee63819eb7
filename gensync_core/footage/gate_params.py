"""By which thresholds the footage gate judges."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gensync_core.footage.findings import Finding, Footage
from gensync_core.media.ffmpeg_command import MAX_PIXELS


@dataclass(frozen=True, kw_only=True, slots=True)
class MouthParams:
    """How the speaker is to be seen.

    Attributes:
        max_beyond: share of the face's height that may reach past the picture's border.
        max_yaw_deg: turn to a side at which the far half of the mouth is lost; as the mesh sees it, 48 degrees are 38.
        max_pitch_deg: likewise up or down.
        max_share: of the frames that may be out of the picture, or turned away, before footage is rejected.
        worth_a_warning: share of them from which it is said.
        min_lip_redness: a* of lips over that of the skin around them (CIELAB); less is no lips.
        min_skin_chroma: of the cheeks (CIELAB); footage with less is black and white, and lips are not told by colour.
        min_hidden_s: shortest time of a hidden mouth that is said.
        min_motion: standard deviation of the mouth's opening, over the inter-ocular distance, within 2 s of speech.
        min_offset_s: offset of the sound from which it is said; people differ by 0.08 s.
        min_certainty: of an offset that is said (see `SoundOffset`).
        min_certainty_shift: of an offset by which the sound is shifted.
    """

    max_beyond: float | int = 0.03
    max_yaw_deg: float | int = 32.0
    max_pitch_deg: float | int = 35.0
    max_share: float | int = 0.6
    worth_a_warning: float | int = 0.05
    min_lip_redness: float | int = 0.8
    min_skin_chroma: float | int = 4.0
    min_hidden_s: float | int = 0.5
    min_motion: float | int = 0.006
    min_offset_s: float | int = 0.12
    min_certainty: float | int = 3.5
    min_certainty_shift: float | int = 4.2

    def __post_init__(self) -> None:
        if not 0 <= self.max_beyond <= 1:
            raise ValueError(f"gate.mouth.max_beyond is {self.max_beyond}, expected 0 to 1")
        if not 0 < self.worth_a_warning <= self.max_share <= 1:
            raise ValueError(
                "gate.mouth.worth_a_warning must be more than 0 and at most gate.mouth.max_share, which is at most 1"
            )
        for name in ("max_yaw_deg", "max_pitch_deg"):
            if not 10 <= getattr(self, name) <= 90:
                raise ValueError(f"gate.mouth.{name} is {getattr(self, name)}, expected 10 to 90")
        for name in ("min_skin_chroma", "min_hidden_s", "min_motion"):
            if getattr(self, name) < 0:
                raise ValueError(f"gate.mouth.{name} is {getattr(self, name)}, expected at least 0")
        if not 0.04 <= self.min_offset_s <= 0.5:
            raise ValueError(f"gate.mouth.min_offset_s is {self.min_offset_s}, expected 0.04 to 0.5")
        if not 0 < self.min_certainty <= self.min_certainty_shift:
            raise ValueError("gate.mouth.min_certainty must be more than 0 and at most gate.mouth.min_certainty_shift")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureParams:
    """What the pictures must be like.

    Attributes:
        max_damaged: share of the footage that may be damaged.
        max_damaged_s: damage that is tolerated in footage of any length.
        max_cuts: scene cuts that are tolerated in footage of any length.
        max_cuts_per_minute: scene cuts a minute that are tolerated in longer footage.
        min_black_s: shorter black stretches are left unsaid.
        max_black: share of the footage that may be black.
        min_frozen_s: a picture that stands still for less is left unsaid; a speaker's face never does for this long.
        max_frozen: share of the footage that may stand still.
        good_blur: of the face, median over time, 0 (sharp) to 1: up to here it is sharp enough.
        max_blur: likewise, beyond which neither lips nor teeth are seen.
        good_bright: grey level that the face's highlights should reach, 0 to 255. Not its mean: skin may be dark.
        min_bright: likewise, below which the face is not seen.
        good_clipped: share of the face that may be white without detail.
        max_clipped: likewise, beyond which the face is not seen.
    """

    max_damaged: float | int = 0.1
    max_damaged_s: float | int = 1.0
    max_cuts: int = 2
    max_cuts_per_minute: float | int = 4.0
    min_black_s: float | int = 0.2
    max_black: float | int = 0.25
    min_frozen_s: float | int = 0.6
    max_frozen: float | int = 0.25
    good_blur: float | int = 0.58
    max_blur: float | int = 0.8
    good_bright: float | int = 90.0
    min_bright: float | int = 40.0
    good_clipped: float | int = 0.1
    max_clipped: float | int = 0.5

    def __post_init__(self) -> None:
        for name in ("max_damaged", "max_black", "max_frozen", "good_blur", "max_blur", "good_clipped", "max_clipped"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.picture.{name} is {getattr(self, name)}, expected 0 to 1")
        for lower, upper in (("good_blur", "max_blur"), ("min_bright", "good_bright"), ("good_clipped", "max_clipped")):
            if getattr(self, lower) > getattr(self, upper):
                raise ValueError(f"gate.picture.{lower} is {getattr(self, lower)}, expected at most gate.picture.{upper}")
        if not 0 <= self.min_bright <= self.good_bright <= 255:
            raise ValueError(f"gate.picture.min_bright and good_bright must be 0 to 255, {self.good_bright} is not")
        if min(self.max_damaged_s, self.max_cuts, self.max_cuts_per_minute) < 0:
            raise ValueError("gate.picture.max_damaged_s, max_cuts and max_cuts_per_minute must be at least 0")
        if self.min_black_s < 0.2 or self.min_frozen_s < 0.2:
            raise ValueError("gate.picture.min_black_s and gate.picture.min_frozen_s must be at least 0.2")


@dataclass(frozen=True, kw_only=True, slots=True)
class GateParams:
    """What footage must be like.

    Attributes:
        min_seconds: of pictures and sound together.
        max_seconds: of the whole file.
        min_side_px: of the shorter side of the picture.
        max_pixels: of one frame.
        min_fps: frames shown per second, below which motion of the mouth is lost.
        good_fps: frames shown per second, below which it is worse than it could be.
        min_face_px: height of the face's box (brows to chin) in the footage.
        max_several_faces: share of the sampled frames that may show more than one person.
        max_without_face: share of the sampled frames that may show nobody.
        min_face_ratio: a face under this share of the largest one's height is background (a poster, a passer-by).
        max_missing: share of the promised frames or seconds that may be missing before a file counts as truncated.
        samples_per_second: frames in which faces are counted.
        max_samples: frames in which faces are counted in long footage.
        picture: what the pictures must be like.
        sound: what the sound must be like.
        mouth: what the mouth must be like.
    """

    min_seconds: float | int = 2.5
    max_seconds: float | int = 3600.0
    min_side_px: int = 96
    max_pixels: int = MAX_PIXELS
    min_fps: float | int = 10.0
    good_fps: float | int = 20.0
    min_face_px: int = 48
    max_several_faces: float | int = 0.5
    max_without_face: float | int = 0.5
    min_face_ratio: float | int = 0.4
    max_missing: float | int = 0.02
    samples_per_second: float | int = 2.0
    max_samples: int = 600
    picture: PictureParams = field(default_factory=PictureParams)
    sound: SoundParams = field(default_factory=SoundParams)
    mouth: MouthParams = field(default_factory=MouthParams)

    def __post_init__(self) -> None:
        for name in ("max_several_faces", "max_without_face", "min_face_ratio", "max_missing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.{name} is {getattr(self, name)}, expected 0 to 1")
        if not 1 <= self.min_seconds < self.max_seconds:
            raise ValueError(f"gate.min_seconds is {self.min_seconds}, expected at least 1 and less than gate.max_seconds")
        if not 0 < self.min_fps <= self.good_fps:
            raise ValueError(f"gate.min_fps is {self.min_fps}, expected more than 0 and at most gate.good_fps")
        if not 1 <= self.max_pixels <= MAX_PIXELS:
            raise ValueError(f"gate.max_pixels is {self.max_pixels}, expected 1 to {MAX_PIXELS}")
        if self.min_side_px < 16 or self.min_face_px < 8:
            raise ValueError("gate.min_side_px must be at least 16 and gate.min_face_px at least 8")
        if not 0.1 <= self.samples_per_second <= 25 or self.max_samples < 1:
            raise ValueError("gate.samples_per_second must be 0.1 to 25 and gate.max_samples at least 1")


Check = Callable[[Footage, GateParams], Iterable[Finding]]
"""One look at the footage; it yields what it finds."""
