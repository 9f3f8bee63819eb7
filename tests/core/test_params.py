from pathlib import Path

import pytest
import yaml

from gensync_core.errors import UsageError
from gensync_core.params import Params, digest, load_params

_PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def content():
    return yaml.safe_load(_PARAMS_FILE.read_text())


def _load(tmp_path, content) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_params(path)


def test_shipped_parameters_are_valid():
    params = load_params(_PARAMS_FILE)
    assert params.split.num_train(1100) == 1000


def test_unknown_key_names_file_section_and_key(tmp_path, content):
    content["joint"]["stepz"] = 3
    with pytest.raises(UsageError, match=r"params\.yaml: joint: unknown key stepz"):
        _load(tmp_path, content)


def test_missing_key_is_named(tmp_path, content):
    del content["loss"]["mouth"]
    with pytest.raises(UsageError, match="loss: missing key mouth"):
        _load(tmp_path, content)


def test_number_that_yaml_reads_as_text_is_explained(tmp_path, content):
    content["joint"]["network_rate"] = "1e-3"
    with pytest.raises(UsageError, match=r"joint\.network_rate.*1\.0e-3"):
        _load(tmp_path, content)


def test_value_out_of_range_is_explained(tmp_path, content):
    content["split"]["test_share"] = 0.9
    with pytest.raises(UsageError, match="test_share must lie in"):
        _load(tmp_path, content)


def test_digest_changes_with_any_field(content, tmp_path):
    one = _load(tmp_path, content)
    content["loss"]["mouth"] += 1
    other = _load(tmp_path, content)
    assert digest(one.loss, 1) != digest(other.loss, 1)
    assert digest(one.loss, 1) == digest(one.loss, 1)
