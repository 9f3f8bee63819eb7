"""clip.mp4 -> masks.mkv, landmarks.safetensors, background.png, parse.json."""

import logging
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gensync_core.artefacts import atomic_path, write_json, write_tensors
from gensync_core.face.background import PlateBuilder
from gensync_core.face.parsing import FaceParser, Frame, Labels
from gensync_core.face.regions import Region
from gensync_core.media.read_ahead import read_ahead
from gensync_core.media.video import LabelWriter, iter_clip, probe
from gensync_core.params import Params
from gensync_core.paths import Project
from gensync_core.progress import progress

_log = logging.getLogger(__name__)


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Parse one speaker's clip and gather the background plate; frames are decoded once and none is kept."""
    paths = project.speaker(project.registry().get(speaker_id))
    clip = probe(paths.clip)
    builder = PlateBuilder(clip.num_frames)
    pixels = np.zeros(len(Region), dtype=np.int64)
    with (
        FaceParser(params.parse) as parser,
        LabelWriter(paths.masks, clip.width, clip.height, clip.fps) as writer,
        progress("parse", clip.num_frames) as job,
        closing(read_ahead(_labelled(paths.clip, parser))) as labelled,
    ):
        for frame, labels in labelled:
            writer.write(labels)
            builder.add(frame, labels)
            pixels += cv2.calcHist([labels], [0], None, [len(Region)], [0, len(Region)]).ravel().astype(np.int64)
            job.advance()
    faces, plate = parser.faces, builder.finish()
    write_tensors(paths.landmarks, {"landmarks_px": faces.landmarks_px, "confidence": faces.confidence}, {})
    with atomic_path(paths.background) as temporary:
        Image.fromarray(plate.image).save(temporary)
    write_json(
        paths.parse_json,
        {
            "backend": params.parse.backend,
            "model": params.parse.model,
            "num_frames": clip.num_frames,
            "frames_without_face": parser.num_faceless,
            "region_share": {region.name.lower(): pixels[region] / max(pixels.sum(), 1) for region in Region},
            "plate_inpainted_share": plate.inpainted_share,
        },
    )
    _log.info(
        "%s: %d frames parsed, %d without a face; no frame shows %.0f %% of the background: it is inpainted there",
        *(speaker_id, clip.num_frames, parser.num_faceless, 100 * plate.inpainted_share),
    )


def _labelled(clip: Path, parser: FaceParser) -> Generator[tuple[Frame, Labels], None, None]:
    with (
        closing(read_ahead(iter_clip(clip))) as frames,
        closing(read_ahead((frame, parser.look(frame)) for frame in frames)) as looked,
    ):
        for frame, face in looked:
            yield frame, parser.label(frame, face)
