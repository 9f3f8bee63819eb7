"""What the fuzz run gives its mutants to, in a process that is told of one case after the other."""

import contextlib
import itertools
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SPEAKER = "mutant"
DEFECT = "DEFECT"


def run_case(case: Mapping[str, str]) -> tuple[str, str]:
    """Give a mutant to its entry; whatever is not one of our errors comes out as it is."""
    from gensync_core.errors import GenSyncError

    path, folder = Path(case["path"]), Path(case["folder"])
    try:
        return ENTRY_CALLS[case["entry"]](path, folder)
    except GenSyncError as error:
        if "\n" in str(error):
            return DEFECT, f"message of several lines: {error!r}"
        return "refused", type(error).__name__


def _read(path: Path, folder: Path) -> tuple[str, str]:
    from gensync_core.media.clip_cutting import shared_span
    from gensync_core.media.probe import sound_format
    from gensync_core.media.sound import iter_sound
    from gensync_core.media.video import convert_audio, iter_frames, probe

    found = probe(path)
    frames = sum(1 for _ in itertools.islice(iter_frames(path, width=64, height=64), 200))
    if found.has_audio:
        sound_format(path)
        sum(len(block) for block in itertools.islice(iter_sound(path, shared_span(found)), 100))
        convert_audio(path, folder / "speech.wav", most_s=60)
    return "taken", "" if frames else "no frame"


def _gate(path: Path, folder: Path) -> tuple[str, str]:
    from gensync_core.footage.gate import check_footage

    report = check_footage(path, loose_gate())
    json.dumps(report.to_json())
    reasons = [finding.code for finding in report.findings if finding.severity == "reject"]
    return ("refused", reasons[0]) if reasons else ("taken", "")


def _ingest(path: Path, folder: Path) -> tuple[str, str]:
    from gensync_core.artefacts import sha256_of
    from gensync_core.media.video import IngestParams
    from gensync_core.params import Params
    from gensync_core.paths import Project
    from gensync_core.speakers import Registry, Speaker
    from gensync_core.stages import ingest

    project = Project(folder)
    raw = project.raw(SPEAKER, path.suffix)
    raw.parent.mkdir(parents=True)
    shutil.move(path, raw)
    entry = Speaker(id=SPEAKER, raw=str(raw.relative_to(folder)), sha256=sha256_of(raw), group="cohort")
    Registry({SPEAKER: entry}).save(project.speakers_file)
    params = object.__new__(Params)  # of which ingest reads two sections
    object.__setattr__(params, "gate", loose_gate())
    object.__setattr__(params, "ingest", IngestParams(resolution=64))
    ingest.run(project, SPEAKER, params)
    return "taken", ""


def _cut(path: Path, folder: Path) -> tuple[str, str]:
    from gensync_core.footage.findings import FaceBox, FaceSample, Footage
    from gensync_core.footage.mouth_scan import scan_mouth
    from gensync_core.footage.picture_scan import scan_picture
    from gensync_core.footage.sound_scan import scan_sound
    from gensync_core.media.clip_cutting import IngestParams, cut_clip, square_crop
    from gensync_core.media.frames import FrameStore
    from gensync_core.media.video import probe

    found = probe(path)
    if not (found.has_video and found.has_audio) or found.width * found.height > 1e6 or found.duration_s > 60:
        return "refused", "unfit"
    if min(found.width, found.height) < 16 or found.video_duration_s <= 0:
        return "refused", "unfit"
    side = min(found.width, found.height)
    face = FaceBox(found.width / 2 - side / 4, found.height / 2 - side / 4, side / 2, side / 2)
    params = IngestParams(resolution=64)
    crop = square_crop([face], found.width, found.height, params)
    clip, wav = folder / "clip.mp4", folder / "audio.wav"
    cut_clip(path, found, crop, params, clip=clip, wav=wav)
    len(FrameStore.open(clip, folder / "scratch"))
    speech = scan_sound(path, found).speech
    scan_picture(path, found, [face])
    scan_mouth(Footage(path, found, (FaceSample(0.0, (face,)),)), speech)
    return "taken", ""


def _sound(path: Path, folder: Path) -> tuple[str, str]:
    from gensync_core.audio.waveform import iter_waveform, store_waveform

    store_waveform(folder / "speech.wav", iter_waveform(path))
    return "taken", ""


ENTRY_CALLS: dict[str, Callable[[Path, Path], tuple[str, str]]] = {
    "read": _read,
    "gate": _gate,
    "ingest": _ingest,
    "cut": _cut,
    "sound": _sound,
}
# What a case may leave in its folder besides its input, and leaves after success.
LEAVES: dict[str, set[str]] = {
    "read": {"speech.wav"},
    "gate": set(),
    "ingest": {"speakers.yaml", *(f"data/speakers/cohort/{SPEAKER}/{name}" for name in ("clip.mp4", "audio.wav", "clip.json"))},
    "cut": {"clip.mp4", "audio.wav"},
    "sound": {"speech.wav"},
}
# May be deleted at any time, and is read by nobody who cannot do without.
KEPT_ASIDE = ("scratch/", ".gensync/gate/")
# That nothing half is kept is the part of the stages that call these.
WRITES_WHERE_TOLD = ("read", "cut")


def loose_gate() -> Any:
    from gensync_core.footage.gate_params import GateParams, MouthParams, PictureParams, SoundParams

    return GateParams(
        min_seconds=1.0,
        min_side_px=16,
        min_fps=1.0,
        min_face_px=8,
        max_several_faces=1.0,
        max_without_face=1.0,
        max_missing=1.0,
        picture=PictureParams(max_damaged=1.0, max_damaged_s=1e6, max_cuts=10_000, max_black=1.0, max_frozen=1.0, max_blur=1.0),
        sound=SoundParams(min_speech_s=0, min_speech_share=0, silent_dbfs=-99.0, max_overdriven=1.0, max_music=1.0),
        mouth=MouthParams(max_share=1.0, max_yaw_deg=90.0, max_pitch_deg=90.0, min_skin_chroma=0.0, min_motion=0.0),
    )


def work() -> None:
    """Answer cases on standard input, one a line, until there are no more."""
    import torch

    from gensync_core.media import container_process

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else may write between the answers
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        case = json.loads(line)
        start = time.monotonic()
        try:
            result, detail = run_case(case)
        except Exception:
            result, detail = DEFECT, traceback.format_exc()
        reader = container_process._reader._process
        left = _children(os.getpid()) - ({reader.pid} if reader else set())
        if left:
            result, detail = DEFECT, f"child processes are left: {left}"
        answers.write(json.dumps({"result": result, "detail": detail, "seconds": time.monotonic() - start}) + "\n")
        answers.flush()


def _children(pid: int) -> set[int]:
    """Running or unreaped children of a process; none where the system does not say."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended since then; its children are another's
            found.update(int(number) for number in path.read_text().split())
    return found
