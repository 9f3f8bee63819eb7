"""Random access to the frames of a clip: decoded once into a scratch file, read lazily from there."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gensync_core.artefacts import atomic_path, sha256_of
from gensync_core.errors import ArtefactBroken, FootageRejected
from gensync_core.media.video import iter_frames, iter_labels, probe

_DIGEST_LENGTH = 20


class FrameStore:
    """Frames of a clip (RGB) or of a label video (gray) by number."""

    def __init__(self, frames: np.ndarray) -> None:
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
        return cls(np.load(decoded, mmap_mode="r", allow_pickle=False))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "H W *C"]:
        """Frame `index`, read-only: [H, W, 3] or, for labels, [H, W]."""
        return np.asarray(self._frames[index])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return self._frames.shape[1:]


def _decode(clip: Path, target: Path, gray: bool) -> None:
    promised = probe(clip).num_frames
    frames = iter_labels(clip) if gray else iter_frames(clip)
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
