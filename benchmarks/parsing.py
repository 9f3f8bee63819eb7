"""How long does parsing take for each second of footage, how still are the masks, and what do they look like?

    python benchmarks/parsing.py CLIP ... [--size 512] [--seconds 4] [--backend NAME --model FILE] [--sheet FILE] [--json FILE]

Each clip is looked at as if it were ingested: a square around the face at `--size`, 25 frames a second. Its beginning is parsed
twice: as the pipeline does, and with a segmenter that judges every frame with no memory (`raw`). A row for each says

- wall, CPU: seconds for each second of footage, of this process (decoding is not in it); the parser is warm;
- flicker, in percent and for each region: of all pixels within 3 px (at 512 px) of the region's boundary, the share whose
  membership changes from a frame to the next although the picture does not move that way. The past frame's mask is carried to
  the present one by Farneback's optical flow at 256 px, a different one from the filter's own. An opening mouth and a blink
  change the picture in a way that no flow explains: they count as flicker in both rows;
- IoU of the region with that of the raw row's: what the filter changes.

`--sheet` writes a PNG: a row for each clip, frames over time with their regions in colour, at the end the background plate,
and the same with what was inpainted in red. Sheets show people: keep them to yourself.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from laboratory import table
from PIL import Image

from gensync_core.evaluation.contact_sheet import arrange, tile
from gensync_core.face.background import Plate, PlateBuilder
from gensync_core.face.landmarks import detect_faces
from gensync_core.face.parsing import FaceParser, ParseParams
from gensync_core.face.regions import Region
from gensync_core.media.clip_cutting import IngestParams, square_crop
from gensync_core.media.probe import probe
from gensync_core.media.video import iter_frames

FPS = 25
TILE_PX = 224
TILES = 6
BAND_PX = 3 / 512
FLOW_PX = 256
COLOURS = np.array(
    [(0, 0, 0), (40, 90, 220), (0, 200, 200), (160, 60, 180), (240, 170, 110), (230, 30, 50), (255, 255, 0), (40, 220, 60)],
    dtype=np.float32,
)
"""Of the regions by id: torso blue, neck cyan, hair violet, face orange, lips red, mouth yellow, eyes green."""


class Parsed(NamedTuple):
    """What a parser made of some frames, and its seconds for each second of footage."""

    labels: list[np.ndarray]
    plate: Plate
    wall: float
    cpu: float


def frames_of(clip: Path, size_px: int, seconds: float) -> Iterator[np.ndarray]:
    """The beginning of a clip, cut to a square around its face as ingest does.

    Raises:
        SystemExit: no face is seen.
    """
    found = probe(clip)
    faces = [face for frame in iter_frames(clip, fps=1, duration_s=seconds) for face in detect_faces(frame)[:1]]
    if not faces:
        raise SystemExit(f"{clip}: no face in the first {seconds:g} s")
    crop = square_crop(faces, found.width, found.height, IngestParams())
    square = (crop.x, crop.y, crop.size, crop.size)
    yield from iter_frames(clip, fps=FPS, width=size_px, height=size_px, crop=square, duration_s=seconds)


def parse(frames: Sequence[np.ndarray], params: ParseParams) -> Parsed:
    """Parse frames and gather the background plate."""
    builder, labels = PlateBuilder(len(frames)), []
    with FaceParser(params) as warm:
        warm.parse(frames[0])
    with FaceParser(params) as parser:
        wall, cpu = time.monotonic(), time.process_time()
        for frame in frames:
            labels.append(parser.parse(frame))
            builder.add(frame, labels[-1])
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    seconds = len(frames) / FPS
    return Parsed(labels, builder.finish(), wall / seconds, cpu / seconds)


def flicker(frames: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[Region, float]:
    """Percent of the pixels near each region's boundary that change sides with no motion to explain it; NaN: never seen."""
    height, width = labels[0].shape
    small = [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (FLOW_PX, FLOW_PX), interpolation=cv2.INTER_AREA) for f in frames]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    reach = 2 * max(1, round(BAND_PX * width)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    changed, near = np.zeros(len(Region)), np.zeros(len(Region))
    for (past, now), (before, after) in zip(pairwise(small), pairwise(labels), strict=True):
        motion = cv2.calcOpticalFlowFarneback(now, past, np.empty(0), 0.5, 4, 13, 3, 7, 1.5, 0)
        flow = cv2.resize(motion, (width, height)) * np.array([width / FLOW_PX, height / FLOW_PX], dtype=np.float32)
        x, y = columns + flow[..., 0], rows + flow[..., 1]
        for region in Region:
            mask = (before == region).astype(np.float32)
            moved = cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) > 0.5
            band = cv2.morphologyEx(moved.astype(np.uint8), cv2.MORPH_GRADIENT, disc) > 0
            changed[region] += np.count_nonzero(moved != (after == region))
            near[region] += np.count_nonzero(band)
    return {region: float(100 * changed[region] / near[region]) if near[region] else float("nan") for region in Region}


def iou(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> dict[Region, float]:
    """Intersection over union of each region over all frames; NaN where neither has it."""
    shared = {region: 0 for region in Region}
    either = dict(shared)
    for one, other in zip(first, second, strict=True):
        for region in Region:
            a, b = one == region, other == region
            shared[region] += int(np.count_nonzero(a & b))
            either[region] += int(np.count_nonzero(a | b))
    return {region: shared[region] / either[region] if either[region] else float("nan") for region in Region}


def overlay(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The frame with its regions in colour, edges stronger, the background darker."""
    share = np.where(labels == Region.BACKGROUND, 0.4, 0.45)[..., None]
    shown = frame * (1 - share) + COLOURS[labels] * share
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    shown[edges] = 127 + COLOURS[labels][edges] / 2
    return np.clip(shown, 0, 255).astype(np.uint8)


def sheet_row(frames: Sequence[np.ndarray], parsed: Parsed) -> list[np.ndarray]:
    """Tiles of one clip: frames over time, the plate, and the plate with what was inpainted in red."""
    places = np.linspace(0, len(frames) - 1, TILES).round().astype(int)
    guessed = parsed.plate.image.copy()
    guessed[parsed.plate.unseen] = guessed[parsed.plate.unseen] // 2 + np.array([127, 0, 0], dtype=np.uint8)
    pictures = [*(overlay(frames[place], parsed.labels[place]) for place in places), parsed.plate.image, guessed]
    return [tile(picture, TILE_PX) for picture in pictures]


def row_of(clip: Path, name: str, frames: Sequence[np.ndarray], parsed: Parsed, raw: Parsed) -> dict[str, Any]:
    """Figures of one parser on one clip."""
    still, same = flicker(frames, parsed.labels), iou(parsed.labels, raw.labels)
    about = {"clip": clip.stem, "parser": name, "seconds": len(frames) / FPS, "wall": parsed.wall, "cpu": parsed.cpu}
    figures = {f"flicker_{region.name.lower()}": still[region] for region in Region}
    figures |= {f"iou_{region.name.lower()}": same[region] for region in Region}
    return {**about, **figures, "inpainted": parsed.plate.inpainted_share}


def columns(kind: str, form: str) -> tuple[tuple[str, str, str], ...]:
    """Columns of a table of `flicker` or `iou`."""
    regions = ((f"{kind}_{region.name.lower()}", region.name.lower(), form) for region in Region)
    return ("clip", "clip", "s"), ("parser", "parser", "s"), *regions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("--size", type=int, default=512, help="working size, px")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each clip")
    parser.add_argument("--backend", default="mediapipe")
    parser.add_argument("--model", default="")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    arguments = parser.parse_args()
    params = ParseParams(backend=arguments.backend, model=arguments.model)
    raw_params = ParseParams(backend=arguments.backend, model=arguments.model, every=1, temporal_smoothing=0.0)
    rows, tiles = [], []
    for clip in arguments.clips:
        frames = list(frames_of(clip, arguments.size, arguments.seconds))
        parsed, raw = parse(frames, params), parse(frames, raw_params)
        rows += [row_of(clip, "raw", frames, raw, raw), row_of(clip, "pipeline", frames, parsed, raw)]
        tiles.append(sheet_row(frames, parsed))
        print(f"{clip.stem}: {len(frames)} frames, {parsed.cpu:.2f} CPU s a second", file=sys.stderr, flush=True)
    speed = (("clip", "clip", "s"), ("parser", "parser", "s"), ("seconds", "seconds", ".1f"))
    print(table(rows, (*speed, ("wall", "wall", ".3f"), ("cpu", "CPU", ".3f"), ("inpainted", "inpainted", ".2f"))))
    print("\nflicker, %\n" + table(rows, columns("flicker", ".1f")))
    print("\nIoU with raw\n" + table(rows[1::2], columns("iou", ".3f")))
    if arguments.sheet:
        arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(arrange(tiles)).save(arguments.sheet)
        print(arguments.sheet)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
