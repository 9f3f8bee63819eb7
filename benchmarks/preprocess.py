"""How long do the footage gate, ingest, parse, track and audio take for each second of footage, and what memory do they hold?

    python benchmarks/preprocess.py [--work FOLDER] [--clips FILE ...] [--size 512] [--loop MINUTES] [--json FILE]

All run as in onboarding: the gate first (`check`), which keeps its report for ingest, then each stage by
`python -m gensync_core STAGE --speaker ID` in a project folder: ingest, then parse and track, and audio beside them.
With `--loop` the first clip is also repeated until it is so long: memory must not grow with it. Without clips a built-in
sample is made. Prints a table and writes `preprocess.csv` into the results. A row says

- wall, CPU: seconds of the stage for each second of footage; CPU seconds are those of the stage and of ffmpeg below it;
- peak: most memory that the stage's own process held, in MB (resident; without ffmpeg).

- all: the four stages, from the first one's start to the last one's end; with check: and the gate;
- x264: a yardstick for the machine of the hour, whose speed is rarely the same twice: ffmpeg alone scales the clip's first
  20 s to the size and codes them by x264's `medium` with one thread. Compare runs by the ratio of CPU seconds to it.

Mark: the four stages together need less than a second for a second of footage on 2 cores.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from laboratory import RESULTS, add_arguments, make_sample, table, write_results
from process_memory import RSS_UNIT, peak_bytes_of

from gensync_core.media.ffmpeg_command import ffmpeg_binary
from gensync_core.media.probe import probe
from gensync_core.paths import Project
from tasks import registration
from tasks.dvc_project import thread_env
from tasks.workspace import create_workspace, source_root

SAMPLE = "astronaut"
MARK = 1.0
CHECK, ALL, ALL_AND_CHECK, YARDSTICK = "check", "all", "with check", "x264"
_YARDSTICK_S = 20.0
_LOOK_EVERY_S = 0.05


class Used(NamedTuple):
    """What one process used."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def run_measured(command: list[str], folder: Path) -> Used:
    """Run a command to its end.

    Raises:
        SystemExit: it failed.
    """
    start = time.monotonic()
    with subprocess.Popen(command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL) as process:
        peak = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, peak_bytes_of(process.pid))
            time.sleep(_LOOK_EVERY_S)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    largest = usage.ru_maxrss * RSS_UNIT  # of the process and of those below it
    return Used(wall, usage.ru_utime + usage.ru_stime, (peak or largest) / 1e6)


def _environment() -> dict[str, str]:
    """Without PYTHONPATH: the code is the project's own copy. Threads of libraries as the pipeline has them (`meta: cpu`)."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | thread_env(1)


def looped(clip: Path, minutes: float, folder: Path) -> Path:
    """The clip again and again, for so many minutes, without coding it anew."""
    out = folder / f"{clip.stem}_{minutes:g}min{'.mp4' if clip.suffix == '.mp4' else '.mkv'}"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f"part-{out.name}")
        length = ["-t", f"{60 * minutes:g}", "-c", "copy"]
        command = [ffmpeg_binary(), "-nostdin", "-v", "error", "-y", "-stream_loop", "-1", "-i", str(clip), *length, str(part)]
        subprocess.run(command, check=True)
        part.rename(out)
    return out


def measure(project: Project, clip: Path, size_px: int) -> list[dict[str, Any]]:
    """A row for each stage, and one for all of them."""
    name = clip.stem.lower()
    if name not in project.registry().speakers:
        registration.add_speaker(project, clip, name, "cohort")
    paths = project.speaker(project.registry().get(name))
    seconds = probe(clip).duration_s
    about = {"clip": clip.stem, "seconds": seconds, "size_px": size_px}

    def run(stage: str) -> Used:
        what = [str(paths.raw)] if stage == CHECK else ["--speaker", name]
        used = run_measured([sys.executable, "-m", "gensync_core", stage, *what], project.root)
        print(f"{clip.stem}: {stage}: {used.wall_s:.1f} s, {used.peak_mb:.0f} MB", file=sys.stderr, flush=True)
        return used

    check, start = run(CHECK), time.monotonic()
    used = {"ingest": run("ingest")}
    with ThreadPoolExecutor() as beside:
        audio = beside.submit(run, "audio")
        used |= {stage: run(stage) for stage in ("parse", "track")}
        used["audio"] = audio.result()
    together = _together(used.values(), time.monotonic() - start)
    yardstick = _scaled(run_measured(_x264(clip, size_px), project.root), seconds / min(seconds, _YARDSTICK_S))
    used = {
        YARDSTICK: yardstick,
        CHECK: check,
        **used,
        ALL: together,
        ALL_AND_CHECK: _together((check, together), check.wall_s + together.wall_s),
    }
    return [
        {**about, "stage": stage, "wall": one.wall_s / seconds, "cpu": one.cpu_s / seconds, "peak_mb": one.peak_mb}
        for stage, one in used.items()
    ]


def _x264(clip: Path, size_px: int) -> list[str]:
    reading = ["-nostdin", "-v", "error", "-threads", "1", "-t", str(_YARDSTICK_S), "-i", str(clip)]
    scaling = ["-an", "-filter_threads", "1", "-vf", f"scale={size_px}:{size_px}"]
    coding = ["-c:v", "libx264", "-preset", "medium", "-threads", "1", "-f", "null", "-"]
    return [ffmpeg_binary(), *reading, *scaling, *coding]


def _scaled(used: Used, times: float) -> Used:
    return Used(used.wall_s * times, used.cpu_s * times, used.peak_mb)


def _together(parts: Collection[Used], wall_s: float) -> Used:
    return Used(wall_s, sum(part.cpu_s for part in parts), max(part.peak_mb for part in parts))


def verdicts(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Whether the mark was met, clip by clip, and what the stages cost in yardsticks."""
    rows = list(rows)
    yardsticks = {row["clip"]: row["cpu"] for row in rows if row["stage"] == YARDSTICK}
    return [
        f"{row['clip']}: {row['wall']:.2f} s a second, {'below' if row['wall'] < MARK else 'ABOVE'} the mark of {MARK:g}; "
        f"CPU {row['cpu'] / yardsticks[row['clip']]:.1f} times x264's"
        for row in rows
        if row["stage"] == ALL
    ]


COLUMNS = (
    ("clip", "clip", "s"), ("seconds", "seconds", ".1f"), ("size_px", "px", "d"), ("stage", "stage", "s"),
    ("wall", "wall", ".3f"), ("cpu", "CPU", ".3f"), ("peak_mb", "peak", ".0f"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, size_px=512)
    parser.add_argument("--loop", type=float, metavar="MINUTES", help="also repeat the first clip until it lasts so long")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of preprocess.csv")
    arguments = parser.parse_args()
    folder = arguments.work / "preprocess"
    clips = arguments.clips or [make_sample(SAMPLE, folder / "samples", size_px=arguments.size)]
    if arguments.loop:
        clips = [*clips, looped(clips[0], arguments.loop, folder / "samples")]
    project = create_workspace(folder / "project", source_root(), {"ingest": {"resolution": arguments.size}})
    rows: list[dict[str, Any]] = []
    for clip in clips:
        rows += measure(project, clip, arguments.size)
        write_results("preprocess", rows, arguments.json, arguments.results)
    print(table(rows, COLUMNS))
    print("\n".join(verdicts(rows)))
    print(arguments.results / "preprocess.csv")


if __name__ == "__main__":
    main()
