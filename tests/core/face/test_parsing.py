import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from gensync_core.errors import AssetMissing
from gensync_core.face.landmarks import FaceMesh
from gensync_core.face.parsing import FaceParser, ParseParams
from gensync_core.face.polygons import polygon_mask
from gensync_core.face.regions import FACE_OVAL, LIPS_OUTER, Region
from gensync_core.face.segmenters import CELEBAMASK_REGIONS

FRAME = cv2.resize(astronaut()[0:256, 96:352], (192, 192), interpolation=cv2.INTER_AREA)


def centre(labels: np.ndarray, region: Region) -> np.ndarray:
    """Mean (row, column) of a region."""
    return np.argwhere(labels == region).mean(axis=0)


def assert_portrait(labels: np.ndarray) -> None:
    assert labels.shape == FRAME.shape[:2]
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) >= {Region.BACKGROUND, Region.TORSO, Region.HAIR, Region.FACE, Region.LIPS, Region.EYES}
    rows = {region: centre(labels, region)[0] for region in (Region.HAIR, Region.FACE, Region.EYES, Region.LIPS, Region.TORSO)}
    assert rows[Region.HAIR] < rows[Region.FACE] < rows[Region.LIPS] < rows[Region.TORSO]
    assert rows[Region.EYES] < rows[Region.LIPS]
    assert (labels[:20, :20] == Region.BACKGROUND).all()
    assert labels[-1].max() != Region.BACKGROUND
    face = np.isin(labels, (Region.FACE, Region.LIPS, Region.MOUTH, Region.EYES)).mean()
    assert 0.06 < face < 0.3


@pytest.fixture(scope="module")
def labels():
    with FaceParser() as parser:
        return [parser.parse(FRAME) for _ in range(2)]


def test_regions_of_a_portrait(labels):
    assert_portrait(labels[0])


def test_a_still_scene_gives_still_labels(labels):
    assert (labels[0] != labels[1]).mean() < 0.005


def test_without_a_face_the_person_is_torso():
    with FaceParser() as parser:
        labels = parser.parse(np.full((96, 96, 3), 60, np.uint8))
        assert set(np.unique(labels)) <= {Region.BACKGROUND, Region.TORSO}
        assert (len(parser.faces.confidence), parser.num_faceless) == (1, 1)


def test_a_lost_face_keeps_its_last_place():
    with FaceParser(ParseParams(temporal_smoothing=0.0)) as parser:
        before = parser.parse(FRAME)
        after = parser.parse(np.zeros_like(FRAME))
        assert parser.num_faceless == 1
    overlap = ((before == Region.LIPS) & (after == Region.LIPS)).sum() / (before == Region.LIPS).sum()
    assert overlap > 0.9


def test_polygons_cover_what_they_outline():
    square = np.zeros((478, 3), dtype=np.float32)
    square[list(FACE_OVAL), :2] = 10
    for index, corner in zip(LIPS_OUTER, np.array([(2, 3), (2, 7), (9, 7), (9, 3)] * 5), strict=True):
        square[index, :2] = corner
    ring = LIPS_OUTER[:4]
    mask = polygon_mask(square, ring, 12, 10)
    expected = np.zeros((10, 12), dtype=bool)
    expected[3:7, 2:9] = True
    np.testing.assert_array_equal(mask, expected)


def test_closed_lips_show_no_open_mouth():
    with FaceMesh() as mesh:
        landmarks = mesh.detect(FRAME).landmarks
    closed = landmarks.copy()
    closed[:, 1] = 50
    assert not polygon_mask(closed, LIPS_OUTER, 192, 192).any()


def test_multiclass_backend(shared_data):
    model = shared_data / "models" / "selfie_multiclass_256x256.tflite"
    with FaceParser(ParseParams(backend="multiclass", model=str(model))) as parser:
        assert_portrait(parser.parse(FRAME))


def save_tiny_segformer(folder: Path, names: list[str]) -> None:
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[4, 2],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[8, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)


def test_segformer_backend_maps_labels_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = list(CELEBAMASK_REGIONS)[::-1]  # an order of its own: only the names may count
    save_tiny_segformer(tmp_path, names)
    params = ParseParams(backend="segformer", model=str(tmp_path))
    with FaceParser(params) as parser:
        labels = parser.parse(FRAME)
        weights = parser._segmenter.to_region
    assert labels.shape == FRAME.shape[:2]
    assert labels.max() < len(Region)
    assert weights[names.index("hair"), Region.HAIR] == 1
    assert weights[names.index("u_lip"), Region.LIPS] == 1
    np.testing.assert_array_equal(weights.sum(axis=1), 1)


def test_segformer_with_foreign_labels_is_refused(tmp_path):
    save_tiny_segformer(tmp_path, ["wall", "sky"])
    assert json.loads((tmp_path / "config.json").read_text())["id2label"]["0"] == "wall"
    with pytest.raises(AssetMissing, match="sky, wall"):
        FaceParser(ParseParams(backend="segformer", model=str(tmp_path)))


def test_missing_models_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for backend in ("segformer", "multiclass"):
        with pytest.raises(AssetMissing, match="nowhere"):
            FaceParser(ParseParams(backend=backend, model=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("field", "value"), [("backend", "magic"), ("temporal_smoothing", 1.0), ("backend", "segformer"), ("every", 0)]
)
def test_parameters_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field if value != "segformer" else "model"):
        ParseParams(**{field: value})
