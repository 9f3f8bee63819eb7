"""Files that are not what they seem: scripts that lead to their neighbours, and small files that decode to gigabytes."""

import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def scripts(neighbour: str, url: str) -> dict[str, str]:
    """Playlists and scripts that ffmpeg knows, by kind; each leads to a neighbouring file or to a server."""
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT4S">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" codecs="avc1.4d401f" width="160" '
        'height="128"><BaseURL>{}</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>\n'
    )
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "concat": f"ffconcat version 1.0\nfile {neighbour}\n",
        "concat of a server": f"ffconcat version 1.0\nfile {url}\n",
        "hls": hls.format(neighbour),
        "hls of a server": hls.format(url),
        "hls of a part": hls.format(f"subfile,,start,0,end,0,,:{neighbour}"),
        "master playlist": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n",
        "dash": dash.format(neighbour),
        "dash of a server": dash.format(url),
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 26\n",
        "image list": f"#EXTM3U\n{neighbour}\n",
    }


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """The address of a server on this machine, and a list that grows with every connection to it."""
    connections: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                try:
                    connection, address = server.accept()
                except TimeoutError:
                    continue
                connections.append(str(address))
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/neighbour.mp4", connections
        finally:
            ended.set()
            thread.join()


def gigantic_png(width: int = 16384, height: int = 8192) -> bytes:
    """A picture of one colour: a few hundred bytes for each megapixel."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress(np.zeros((height, width // 8 + 1), dtype=np.uint8).tobytes(), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def mp4(
    picture: bytes = bytes(64),
    *,
    codec: bytes = b"png ",
    width: int = 64,
    height: int = 64,
    samples: int = 1,
    chunks: int = 1,
    sample_bytes: int | None = None,
    delta: int = 1,
    rate: int = 25,
    tracks: int = 1,
) -> bytes:
    """A file whose index says that it holds `chunks` times `samples` pictures, all of them the same bytes.

    Args:
        picture: what each chunk begins with.
        codec: four letters.
        width: according to the header, px.
        height: likewise.
        samples: pictures in a chunk.
        chunks: all lie at the same place.
        sample_bytes: of a picture; None: all of `picture`.
        delta: time from one picture to the next.
        rate: units of time a second.
        tracks: so many of this kind.
    """
    head = _box(b"ftyp", b"isom\0\0\2\0isomiso2")
    size = len(picture) if sample_bytes is None else sample_bytes
    entry = _box(
        codec,
        bytes(6) + struct.pack(">H", 1) + bytes(16),
        struct.pack(">HHIIIH", width, height, 0x480000, 0x480000, 0, 1) + bytes(32) + struct.pack(">HH", 24, 0xFFFF),
    )
    stbl = _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), entry),
        _full(b"stts", struct.pack(">III", 1, samples * chunks, delta)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, samples, 1)),
        _full(b"stsz", struct.pack(">II", size, samples * chunks)),
        _full(b"stco", struct.pack(">I", chunks) + struct.pack(">I", len(head) + 8) * chunks),
    )
    dinf = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _box(b"url ", b"\0\0\0\1")))
    minf = _box(b"minf", _full(b"vmhd", bytes(8)), dinf, stbl)
    hdlr = _full(b"hdlr", struct.pack(">I4s12x", 0, b"vide"), b"v\0")
    traks = []
    for number in range(1, tracks + 1):
        tkhd = _full(
            b"tkhd",
            struct.pack(">IIIII", 0, 0, number, 0, 1000),
            bytes(16),
            _MATRIX,
            struct.pack(">II", width << 16, height << 16),
        )
        mdhd = _full(b"mdhd", struct.pack(">IIII", 0, 0, rate, samples * chunks * delta & 0xFFFFFFFF), b"\x55\xc4\0\0")
        traks.append(_box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, minf)))
    mvhd = _full(
        b"mvhd", struct.pack(">IIII", 0, 0, 1000, 1000), struct.pack(">IHHII", 0x10000, 0x100, 0, 0, 0), _MATRIX, bytes(28)
    )
    return head + _box(b"mdat", picture) + _box(b"moov", mvhd, *traks)


def _box(name: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), name) + content


def _full(name: bytes, *parts: bytes) -> bytes:
    return _box(name, bytes(4), *parts)
