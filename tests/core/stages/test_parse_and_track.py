"""The two stages that look at faces, on a few seconds of a portrait that moves."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.data import astronaut

from gensync_core.artefacts import read_json, read_tensors, sha256_of
from gensync_core.dataset.split_params import SplitParams
from gensync_core.errors import FootageRejected
from gensync_core.face.parsing import ParseParams
from gensync_core.face.regions import Region
from gensync_core.face.track_params import TrackParams
from gensync_core.media.video import VideoWriter, iter_labels
from gensync_core.params import Params
from gensync_core.paths import Project, SpeakerPaths
from gensync_core.speakers import Registry, Speaker
from gensync_core.stages import parse, track

T, SIZE = 24, 96


def default_params() -> Params:
    """Only the sections that these stages read; the others are nobody's business here."""
    params = object.__new__(Params)
    object.__setattr__(params, "parse", ParseParams())
    object.__setattr__(params, "track", TrackParams())
    object.__setattr__(params, "split", SplitParams(test_share=1 / 11))
    return params


PARAMS = default_params()


def roll_deg(index: int) -> float:
    return 8 * float(np.sin(index / 6))


def project_with_clip(root: Path, frames: list[np.ndarray]) -> tuple[Project, SpeakerPaths]:
    project = Project(root)
    speaker = Speaker(id="eileen", raw="data/raw/eileen.mp4", sha256="0", group="cohort")
    Registry({"eileen": speaker}).save(project.speakers_file)
    paths = project.speaker(speaker)
    paths.folder.mkdir(parents=True)
    with VideoWriter(paths.clip, SIZE, SIZE, 25, crf=4) as writer:
        for frame in frames:
            writer.write(frame)
    return project, paths


def moving_portrait() -> list[np.ndarray]:
    portrait = cv2.resize(astronaut()[0:256, 96:352], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    frames = []
    for index in range(T):
        turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), roll_deg(index), 1.0)
        frames.append(cv2.warpAffine(portrait, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE))
    return frames


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    project, paths = project_with_clip(tmp_path_factory.mktemp("project"), moving_portrait())
    parse.run(project, "eileen", PARAMS)
    track.run(project, "eileen", PARAMS)
    return project, paths


def test_track_writes_a_row_a_frame(done):
    _, paths = done
    table = pd.read_parquet(paths.track_table)
    assert list(table.columns) == [
        *("frame", "time_s", "qw", "qx", "qy", "qz", "tx", "ty", "tz"),
        *("aperture", "mouth_width", "blink", "confidence", "interpolated"),
    ]
    assert table["frame"].tolist() == list(range(T))
    np.testing.assert_allclose(table["time_s"], np.arange(T) / 25)
    np.testing.assert_allclose(np.linalg.norm(table[["qw", "qx", "qy", "qz"]], axis=1), 1, rtol=1e-5)
    assert table["blink"].between(0, 1).all()
    assert not table["interpolated"].any()


def test_track_writes_arrays_of_the_agreed_shapes(done):
    _, paths = done
    arrays, meta = read_tensors(paths.track_arrays)
    shapes = {name: array.shape for name, array in arrays.items()}
    count = len(arrays["expression_directions"])
    assert 1 <= count <= 24
    assert shapes == {
        "landmarks_px": (T, 478, 3),
        "head_to_camera": (T, 4, 4),
        "body_to_camera": (T, 4, 4),
        "upper_face": (T, 6),
        "canonical_landmarks": (478, 3),
        "canonical_motion": (T, 478, 3),
        "expression_directions": (count, 478, 3),
        "expression_weights": (T, count),
    }
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values())
    assert meta["fps"] == 25
    assert 0 <= meta["reference_frame"] < 0.91 * T  # never one of the held-out frames
    camera = read_json(paths.camera)
    assert camera["width"] == camera["height"] == SIZE
    assert camera["reprojection_px"] < 1


def test_the_roll_of_the_portrait_is_tracked(done):
    _, paths = done
    table = pd.read_parquet(paths.track_table)
    found = np.degrees(2 * np.arctan2(table["qz"], table["qw"]))
    true = np.array([-roll_deg(index) for index in range(T)])  # OpenCV turns counter-clockwise, our z axis points away
    assert np.abs((found - found.mean()) - (true - true.mean())).max() < 1.5


def test_parse_writes_labels_plate_and_facts(done):
    _, paths = done
    labels = list(iter_labels(paths.masks))
    assert len(labels) == T
    assert set(np.unique(labels[0])) >= {Region.BACKGROUND, Region.TORSO, Region.HAIR, Region.FACE, Region.LIPS}
    assert np.asarray(Image.open(paths.background)).shape == (SIZE, SIZE, 3)
    facts = read_json(paths.parse_json)
    assert facts["num_frames"] == T
    assert facts["frames_without_face"] == 0
    assert sum(facts["region_share"].values()) == pytest.approx(1)
    assert 0 < facts["plate_inpainted_share"] < 0.9


def test_both_stages_give_the_same_bytes_again(done):
    project, paths = done
    outputs = (
        paths.masks,
        paths.landmarks,
        paths.background,
        paths.parse_json,
        paths.track_table,
        paths.track_arrays,
        paths.camera,
    )
    before = [sha256_of(path) for path in outputs]
    parse.run(project, "eileen", PARAMS)
    track.run(project, "eileen", PARAMS)
    assert [sha256_of(path) for path in outputs] == before


def test_a_clip_without_a_face_is_refused_and_leaves_nothing(tmp_path):
    project, paths = project_with_clip(tmp_path, [np.full((SIZE, SIZE, 3), 80, np.uint8)] * 10)
    parse.run(project, "eileen", PARAMS)
    with pytest.raises(FootageRejected, match=r"clip\.mp4: no face in 100% of the frames \(first at 0\.0 s"):
        track.run(project, "eileen", PARAMS)
    assert not paths.track_table.exists()
    assert not paths.track_arrays.exists()
