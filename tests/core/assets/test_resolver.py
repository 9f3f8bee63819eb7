import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from gensync_core.assets import KNOWN_ASSETS, KnownAsset, find, package_index, resolve, resolver
from gensync_core.errors import AssetMissing

CONTENT = b"weights of a model"
OTHER = b"the same weights in another form"
MEMBER = "toy_package/models/toy.bin"
TOY = KnownAsset(
    id="toy",
    requirement="toy-package==1.0",
    member=MEMBER,
    files={"toy.bin": hashlib.sha256(CONTENT).hexdigest(), "toy.safetensors": hashlib.sha256(OTHER).hexdigest()},
    licence="MIT",
    download_mb=1,
)


class Index:
    """A package index with one wheel; counts downloads."""

    def __init__(self) -> None:
        self.content: bytes | None = CONTENT
        self.member = MEMBER
        self.delay_s = 0.0
        self.downloads = 0

    def download(self, requirement: str, folder: Path) -> Path:
        assert requirement == TOY.requirement
        self.downloads += 1
        time.sleep(self.delay_s)
        if self.content is None:
            raise AssetMissing("pip download toy-package==1.0: no network")
        wheel = folder / "toy_package-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("toy_package/__init__.py", "raise SystemExit('never imported')")
            archive.writestr(self.member, self.content)
        return wheel


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Index:
    index = Index()
    monkeypatch.setattr(package_index, "download_wheel", index.download)
    monkeypatch.setattr(resolver, "KNOWN_ASSETS", {"toy": TOY})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GENSYNC_ASSETS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return index


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    monkeypatch.setenv("GENSYNC_ASSETS", str(folder))
    return folder


def test_a_file_is_fetched_once_and_found_in_the_cache_after(index: Index, tmp_path: Path) -> None:
    assert find("toy") is None
    path = resolve("toy")
    assert path == tmp_path / "cache" / "gensync" / "assets" / "toy.bin"
    assert path.read_bytes() == CONTENT
    assert resolve("toy") == find("toy") == path
    assert index.downloads == 1
    assert sorted(file.name for file in path.parent.iterdir()) == [".lock", "toy.bin"]


def test_the_assets_folder_comes_first_in_either_form(index: Index, folder: Path) -> None:
    (folder / "toy.safetensors").write_bytes(OTHER)
    assert resolve("toy") == folder / "toy.safetensors"
    (folder / "toy.bin").write_bytes(CONTENT)
    assert resolve("toy") == folder / "toy.bin"
    assert index.downloads == 0


def test_a_wrong_file_in_the_assets_folder_is_an_error_not_passed_over(index: Index, folder: Path) -> None:
    (folder / "toy.bin").write_bytes(b"something else")
    with pytest.raises(AssetMissing, match="not the toy we know"):
        resolve("toy")
    assert index.downloads == 0


def test_an_empty_assets_folder_falls_back_to_the_cache(index: Index, folder: Path) -> None:
    assert resolve("toy").parent.name == "assets"
    assert index.downloads == 1
    assert not list(folder.iterdir())


def test_a_damaged_file_in_the_cache_is_fetched_again(index: Index) -> None:
    path = resolve("toy")
    path.write_bytes(CONTENT[:-1])
    assert resolve("toy").read_bytes() == CONTENT
    assert index.downloads == 2


def test_a_wheel_with_other_content_is_refused_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    index.content = b"evil twin"
    with pytest.raises(AssetMissing, match="sha256"):
        resolve("toy")
    index.content, index.member = CONTENT, "toy_package/renamed.bin"
    with pytest.raises(AssetMissing, match=r"toy\.bin"):
        resolve("toy")
    assert [file.name for file in (tmp_path / "cache" / "gensync" / "assets").iterdir()] == [".lock"]


def test_the_message_lists_what_was_tried_and_what_to_do(index: Index, folder: Path) -> None:
    index.content = None
    with pytest.raises(AssetMissing) as caught:
        resolve("toy")
    for part in (str(folder), "cache", "no network", "toy.safetensors", "GENSYNC_ASSETS"):
        assert part in str(caught.value)


def test_many_at_once_fetch_once(index: Index) -> None:
    index.delay_s = 0.1
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(resolve("toy"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 6
    assert index.downloads == 1


def test_folders_are_taken_as_they_are_and_hub_ids_looked_up_by_name(index: Index, folder: Path, tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path
    (folder / "owner" / "model").mkdir(parents=True)
    (folder / "single").mkdir()
    assert resolve("owner/model") == folder / "owner" / "model"
    assert resolve("another/single") == folder / "single"


def test_offline_no_hub_is_asked(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def snapshot_download(hub_id: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append(local_files_only)
        raise OSError(f"{hub_id} is not cached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(AssetMissing, match="HF_HUB_OFFLINE is set"):
        resolve("owner/model")
    assert asked == [True]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(AssetMissing, match="the hub and its cache"):
        resolve("owner/model")
    assert asked == [True, False]


def test_nonsense_names_what_is_known(index: Index) -> None:
    with pytest.raises(AssetMissing, match="toy"):
        resolve("no-such-thing")


def test_pip_is_asked_for_a_wheel_only_and_its_complaint_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "warning\nERROR: no such version\n")

    monkeypatch.setattr(package_index.subprocess, "run", run)
    with pytest.raises(AssetMissing, match="no such version"):
        package_index.download_wheel("toy==9", tmp_path)
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary", ":all:"} <= set(commands[0])

    def late(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(package_index.subprocess, "run", late)
    with pytest.raises(AssetMissing, match="longer"):
        package_index.download_wheel("toy==9", tmp_path)


@pytest.fixture
def source_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package that exists as source only, whose setup.py leaves a trace when it runs; pip finds nothing but it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    path = folder / "toy_package-1.0.tar.gz"
    trace = tmp_path / "ran"
    files = {"setup.py": f"open({str(trace)!r}, 'w')\n".encode(), MEMBER: CONTENT}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"toy_package-1.0/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GENSYNC_ASSETS", raising=False)
    return path


@pytest.mark.slow
def test_of_a_source_package_nothing_runs_and_only_the_expected_one_is_taken(
    source_package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digest = hashlib.sha256(source_package.read_bytes()).hexdigest()
    toy = replace(TOY, member=f"toy_package-1.0/{MEMBER}", source_sha256=digest)
    monkeypatch.setattr(resolver, "KNOWN_ASSETS", {"toy": replace(toy, source_sha256="0" * 64)})
    with pytest.raises(AssetMissing, match="toy-package"):
        resolve("toy")
    assert [file.name for file in (tmp_path / "cache" / "gensync" / "assets").iterdir()] == [".lock"]
    monkeypatch.setattr(resolver, "KNOWN_ASSETS", {"toy": toy})
    assert resolve("toy").read_bytes() == CONTENT
    assert not (tmp_path / "ran").exists()


def test_a_member_of_a_source_package_must_be_a_file(source_package: Path, tmp_path: Path) -> None:
    package_index.extract_member(source_package, f"toy_package-1.0/{MEMBER}", tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == CONTENT
    with pytest.raises(AssetMissing, match="absent"):
        package_index.extract_member(source_package, "absent", tmp_path / "other")
    source_package.write_bytes(source_package.read_bytes()[:40])
    with pytest.raises(AssetMissing, match="cannot take out"):
        package_index.extract_member(source_package, f"toy_package-1.0/{MEMBER}", tmp_path / "other")


def test_known_assets_are_pinned() -> None:
    for asset in KNOWN_ASSETS.values():
        assert "==" in asset.requirement
        assert asset.source_sha256 is None or len(asset.source_sha256) == 64
        assert all(len(sha256) == 64 for sha256 in asset.files.values())
        assert asset.member.endswith(asset.file_name)
    with pytest.raises(TypeError):
        replace(next(iter(KNOWN_ASSETS.values())), unknown=1)


def test_the_files_at_hand_are_the_known_ones(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSYNC_ASSETS", str(shared_data / "models"))
    assert resolve("whisper-tiny.en").name == "whisper_tiny_en_encoder.safetensors"
    assert resolve("face_landmarker").name == "face_landmarker.task"
    assert resolve("lpips-alex").name == "lpips_alex.npz"
