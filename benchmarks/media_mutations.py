"""Small videos and recordings of every kind that is taken, and ways in which such files are damaged by chance or by design."""

import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from gensync_core.media.ffmpeg_command import ffmpeg_binary
from gensync_core.samples import make_sample

PICTURE_PX = 192
SECONDS = 1.4

_SMALL_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "12", "-pix_fmt", "yuv420p")
_HDR = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
# Name of the file -> how it is made from a sample speaker's video.
VIDEOS: dict[str, Sequence[str]] = {
    "h264.mp4": (*_SMALL_H264, "-c:a", "aac"),
    "fragments.mp4": (*_SMALL_H264, "-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov"),
    "h264.mov": (*_SMALL_H264, "-c:a", "pcm_s16le"),
    "hdr.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", *_HDR, "-c:a", "aac"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
    "h264.mkv": (*_SMALL_H264, "-c:a", "flac"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "6", "-c:a", "pcm_s16le"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "h264.ts": (*_SMALL_H264, "-c:a", "aac"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-c:a", "mp2"),
}
SOUNDS: dict[str, Sequence[str]] = {
    "pcm.wav": ("-vn", "-c:a", "pcm_s16le", "-ar", "44100", "-ac", "2"),
    "float.wav": ("-vn", "-c:a", "pcm_f32le", "-ar", "16000", "-ac", "1"),
    "sound.flac": ("-vn", "-c:a", "flac"),
    "sound.mp3": ("-vn", "-c:a", "libmp3lame"),
    "sound.m4a": ("-vn", "-c:a", "aac"),
    "sound.ogg": ("-vn", "-c:a", "libopus"),
}

_INTERESTING = (0, 1, 2, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1)
_BOXES = (
    b"moov mvhd trak tkhd edts elst mdia mdhd hdlr minf stbl stsd stts ctts stss stsc stsz stco co64 "
    b"avc1 avcC hvc1 hvcC mp4a esds colr moof mfhd traf tfhd tfdt trun mdat ftyp dref "
    b"RIFF LIST avih strh strf idx1 movi fmt data fLaC OggS OpusHead"
).split()
# EBML, Segment, Info, Tracks, TrackEntry, Video, Audio, Cluster.
_EBML = [bytes.fromhex(name) for name in ("1a45dfa3", "18538067", "1549a966", "1654ae6b", "ae", "e0", "e1", "1f43b675")]

Mutation = Callable[[bytearray, random.Random, Sequence[bytes]], None]
"""Changes a file's bytes in place, at random, knowing what other files look like."""


def make_files(folder: Path) -> None:
    """Write all of `VIDEOS` and `SOUNDS`, a talking face in each video; what is there already stays."""
    wanted = {name: arguments for name, arguments in (VIDEOS | SOUNDS).items() if not (folder / name).exists()}
    if not wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = make_sample("astronaut", folder / "source" / "speaker.mp4", seconds=SECONDS, size=PICTURE_PX).video
    for name, arguments in wanted.items():
        half = folder / f"half-{name}"
        command = [ffmpeg_binary(), "-nostdin", "-y", "-loglevel", "error", "-i", str(source), *arguments, str(half)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        half.rename(folder / name)
    shutil.rmtree(source.parent)


def flip_bits(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """A few bits anywhere."""
    for _ in range(chance.choice((1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_bits_of_header(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """A few bits of what a reader sees first."""
    for _ in range(chance.choice((1, 2, 4, 16))):
        data[chance.randrange(min(len(data), 2048))] ^= 1 << chance.randrange(8)


def overwrite_run(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """Random bytes in a row."""
    start, size = _run(data, chance)
    data[start : start + size] = chance.randbytes(size)


def zero_run(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """Zeros in a row, as a download with a hole has them."""
    start, size = _run(data, chance)
    data[start : start + size] = bytes(size)


def truncate(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """The end is missing."""
    del data[chance.randrange(1, len(data)) :]


def delete_chunk(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """A piece is missing."""
    start, size = _run(data, chance)
    del data[start : start + size]


def duplicate_chunk(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """A piece comes a second time, somewhere."""
    start, size = _run(data, chance)
    to = chance.randrange(len(data))
    data[to:to] = data[start : start + size]


def splice(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """A piece of a file of another kind, instead of what was there or before it."""
    other = chance.choice(others)
    start, size = _run(bytearray(other), chance)
    to = chance.randrange(len(data))
    data[to : to + chance.choice((0, size))] = other[start : start + size]


def edit_field(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """A number of a box, a chunk or a page gets another value, its size among them."""
    places = _places(data, _BOXES) or [0]
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = max(chance.choice(places) + chance.choice((-4, 4, 8, 12, 16, 20, 24, 28, 32, 40, 44, 80)), 0)
        width, order = chance.choice(((2, ">H"), (4, ">I"), (4, "<I"), (1, "B")))
        if at + width <= len(data):
            value = chance.choice((*_INTERESTING, chance.getrandbits(32))) % (1 << 8 * width)
            data[at : at + width] = struct.pack(order, value)


def edit_element(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """A size of a Matroska element, or a byte of what it holds, gets another value."""
    places = _places(data[:4096], _EBML) or [0]
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.choice(places) + chance.randrange(1, 40)
        if at < len(data):
            data[at] = chance.choice((0, 1, 0x3F, 0x40, 0x7F, 0x80, 0x81, 0xFF, chance.randrange(256)))


def rename_box(data: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """One box is called as another, so that its content is read as what it is not."""
    places = _places(data, _BOXES)
    if places:
        at = chance.choice(places)
        data[at : at + 4] = chance.choice([name for name in _BOXES if len(name) == 4])


MUTATIONS: dict[str, Mutation] = {
    "none": lambda data, chance, others: None,
    "bits": flip_bits,
    "header bits": flip_bits_of_header,
    "byte run": overwrite_run,
    "zeros": zero_run,
    "truncation": truncate,
    "deletion": delete_chunk,
    "duplication": duplicate_chunk,
    "splice": splice,
    "field": edit_field,
    "element": edit_element,
    "box name": rename_box,
}


def mutated(content: bytes, name: str, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A file's bytes after one mutation; one in four gets a second one on top."""
    data = bytearray(content)
    MUTATIONS[name](data, chance, others)
    if name != "none" and len(data) > 1 and chance.random() < 0.25:
        MUTATIONS[chance.choice(list(MUTATIONS))](data, chance, others)
    return bytes(data)


def _run(data: bytearray, chance: random.Random) -> tuple[int, int]:
    size = min(chance.choice((1, 4, 16, 64, 512, 4096, len(data) // 4 + 1)), len(data))
    return chance.randrange(len(data) - size + 1), size


def _places(data: bytearray, names: Sequence[bytes]) -> list[int]:
    places = []
    for name in names:
        at = data.find(name)
        while at >= 0 and len(places) < 400:
            places.append(at)
            at = data.find(name, at + 1)
    return places
