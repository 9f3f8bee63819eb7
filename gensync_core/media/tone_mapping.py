"""From the wide range of light of an HDR recording (BT.2020 with the PQ or HLG curve) to the range that all else here expects.

Both curves and the primaries are undone by zimg (ffmpeg's `zscale`), so that 1.0 is the light of a white sheet of paper,
203 cd/m2. ffmpeg's `tonemap` then leaves the lower third as it is, where most of a lit face lies, and bends what is brighter
so that 1000 cd/m2 become white. Source: BT.2408 for the white; curve (Mobius) and numbers are our own choice.
"""

from typing import Any, Final

from gensync_core.media import ffmpeg_command

HDR_TRANSFERS: Final = ("smpte2084", "arib-std-b67")
WIDE_GAMUT_TRANSFERS: Final = ("bt2020-10", "bt2020-12")

_WHITE_NITS: Final = 203
_PEAK_NITS: Final = 1000
_STRAIGHT_UP_TO: Final = 0.3


def needs_tone_mapping(color_transfer: str) -> bool:
    """Whether pictures of this transfer characteristic look pale and dull when they are shown as they are stored."""
    return color_transfer in HDR_TRANSFERS or color_transfer in WIDE_GAMUT_TRANSFERS


def can_tone_map() -> bool:
    """Whether the ffmpeg in use was built with what it takes; the one of the imageio-ffmpeg wheel is."""
    return {"zscale", "tonemap"} <= ffmpeg_command.known_filters()


def to_standard_range(stream: Any, color_transfer: str) -> Any:
    """BT.709, limited range, 4:4:4; streams of other transfers are handed back as they are.

    It computes in float, so scale a large picture down first.
    """
    if not needs_tone_mapping(color_transfer):
        return stream
    # zscale refuses pictures that do not say all of what they are, and phones often leave the primaries out.
    stream = stream.filter("setparams", color_trc=color_transfer, color_primaries="bt2020", colorspace="bt2020nc")
    stream = stream.filter("format", "yuv444p16le").filter("zscale", t="linear", npl=_WHITE_NITS)
    stream = stream.filter("format", "gbrpf32le")
    stream = stream.filter("zscale", p="bt709")
    if color_transfer in HDR_TRANSFERS:
        peak = _PEAK_NITS / _WHITE_NITS
        stream = stream.filter("tonemap", tonemap="mobius", param=_STRAIGHT_UP_TO, desat=0, peak=f"{peak:.3f}")
    return stream.filter("zscale", t="bt709", m="bt709", r="limited").filter("format", "yuv444p")
