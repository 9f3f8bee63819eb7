"""clip.mp4 -> masks.mkv, background.png, parse.json."""

import numpy as np
from PIL import Image

from gensync_core.artefacts import atomic_path, write_json
from gensync_core.face.background import PlateBuilder
from gensync_core.face.parsing import FaceParser
from gensync_core.face.regions import Region
from gensync_core.media.video import LabelWriter, iter_frames, probe
from gensync_core.params import Params
from gensync_core.paths import Project
from gensync_core.progress import progress


def run(project: Project, speaker_id: str, params: Params) -> None:
    """Parse one speaker's clip and gather the background plate."""
    paths = project.speaker(project.registry().get(speaker_id))
    clip = probe(paths.clip)
    plate = PlateBuilder()
    pixels = np.zeros(len(Region), dtype=np.int64)
    with (
        FaceParser(params.parse) as parser,
        LabelWriter(paths.masks, clip.width, clip.height, clip.fps) as writer,
        progress("parse", clip.num_frames) as job,
    ):
        for frame in iter_frames(paths.clip):
            labels = parser.parse(frame)
            writer.write(labels)
            plate.add(frame, labels)
            pixels += np.bincount(labels.ravel(), minlength=len(Region))
            job.advance()
    image, inpainted_share = plate.finish()
    with atomic_path(paths.background) as temporary:
        Image.fromarray(image).save(temporary)
    write_json(
        paths.parse_json,
        {
            "backend": params.parse.backend,
            "model": params.parse.model,
            "num_frames": parser.num_frames,
            "frames_without_face": parser.num_faceless,
            "region_share": {region.name.lower(): pixels[region] / max(pixels.sum(), 1) for region in Region},
            "plate_inpainted_share": inpainted_share,
        },
    )
