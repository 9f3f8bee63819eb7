import numpy as np
import pytest

from gensync_core.artefacts import atomic_path, read_json, read_tensors, write_json, write_tensors
from gensync_core.errors import ArtefactBroken


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="half"), atomic_path(target) as temporary:
        temporary.write_text("new")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_tensors_round_trip_and_same_content_gives_same_bytes(tmp_path):
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1], dtype=np.int64)}
    write_tensors(tmp_path / "one.safetensors", arrays, {"note": "x"})
    write_tensors(tmp_path / "another-name.safetensors", dict(reversed(arrays.items())), {"note": "x"})
    read, meta = read_tensors(tmp_path / "one.safetensors")
    assert meta["note"] == "x"
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "another-name.safetensors").read_bytes()


def test_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": np.zeros(100, dtype=np.float32)})
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactBroken, match=r"a\.safetensors.*checksum"):
        read_tensors(path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(ArtefactBroken, match=r"none\.safetensors"):
        read_tensors(tmp_path / "none.safetensors")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ArtefactBroken, match="schema version"):
        read_json(tmp_path / "x.json")


def test_json_turns_nan_into_null(tmp_path):
    write_json(tmp_path / "a.json", {"value": float("nan"), "list": [np.float32(1.5)]})
    assert read_json(tmp_path / "a.json") == {"schema_version": 1, "value": None, "list": [1.5]}
