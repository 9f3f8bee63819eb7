"""Random access to the frames of a clip: decoded once into a scratch file, read lazily from there."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gensync_core.artefacts import atomic_path, sha256_of
from gensync_core.errors import ArtefactBroken, FootageRejected
from gensync_core.media.video import iter_clip, iter_labels, probe

_DIGEST_LENGTH = 20


class FrameStore:
    """Frames of a clip (RGB) or of a label video (gray) by number.

    `frames` [T, H, W, 3] or [T, H, W] lie in memory or in a file, of which no more than one frame is in memory at a time.
    """

    def __init__(self, frames: "np.ndarray | _FramesOnDisk") -> None:
        self._frames = frames

    @classmethod
    def open(cls, clip: Path, scratch: Path, *, gray: bool = False) -> "FrameStore":
        """Decode `clip` below `scratch` unless a file of the same content has been decoded there before.

        Raises:
            ArtefactBroken: the clip is missing or damaged.
        """
        try:
            decoded = scratch / "frames" / f"{sha256_of(clip)[:_DIGEST_LENGTH]}-{'gray' if gray else 'rgb'}.npy"
            if not decoded.exists():
                _decode(clip, decoded, gray)
        except (OSError, FootageRejected) as error:
            raise ArtefactBroken(f"{clip}: cannot be read ({error}); run the stage that writes it again") from error
        return cls.of_file(decoded)

    @classmethod
    def of_file(cls, path: Path) -> "FrameStore":
        """The frames in a .npy file of bytes."""
        return cls(_FramesOnDisk(path))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "H W *C"]:
        """Frame `index`: [H, W, 3] or, for labels, [H, W]."""
        return self._frames[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return self._frames.shape[1:]


class _FramesOnDisk:
    """The rows of a .npy file, each read when it is asked for.

    A memory map would count every frame that was ever read as this process's memory.
    """

    def __init__(self, path: Path) -> None:
        header = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self._offset = header.shape, header.offset
        self._bytes_per_frame = int(np.prod(self.shape[1:]))
        self._file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        number = range(len(self))[index]
        data = os.pread(self._file.fileno(), self._bytes_per_frame, self._offset + number * self._bytes_per_frame)
        return np.frombuffer(data, np.uint8).reshape(self.shape[1:])


def _decode(clip: Path, target: Path, gray: bool) -> None:
    promised = probe(clip).num_frames
    frames = iter_labels(clip) if gray else iter_clip(clip)
    first = next(frames, None)
    if first is None:
        raise ArtefactBroken(f"{clip}: holds no frame; run the stage that writes it again")
    with atomic_path(target) as temporary:
        decoded = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(promised, *first.shape))
        decoded[0] = first
        count = 1
        for frame in frames:
            if count < promised:
                decoded[count] = frame
            count += 1
        decoded.flush()
        del decoded
        if count != promised:
            raise ArtefactBroken(f"{clip}: holds {count} frames of {promised}; run the stage that writes it again")
