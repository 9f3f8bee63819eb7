"""`python -m gensync_core STAGE`: what `dvc.yaml` calls. One stage, one process, one exit code."""

import argparse
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gensync_core.errors import GenSyncError
from gensync_core.paths import Project
from gensync_core.progress import Tick, line_sink, use_sink

SPEAKER_STAGES = ("ingest", "parse", "track", "audio", "coarse", "adapt", "evaluate")
SHARED_STAGES = ("joint", "finetune")
OF_FOOTAGE = ("check", "ingest", "parse", "track")
WITHOUT_TORCH = ("ingest", "parse", "track")  # loading it takes longer than it takes to look at seconds of footage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage in the project of the working directory; returns the exit code."""
    options = _parser().parse_args(arguments)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # before NumPy loads: another number rounds differently
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses products on CUDA as not repeatable
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    use_sink(line_sink if os.environ.get("GENSYNC_PROGRESS") == "lines" else _terminal_sink if sys.stdout.isatty() else None)
    try:
        _dispatch(options)
    except GenSyncError as error:
        sys.stderr.write(f"error[{error.exit_code}]: {' '.join(str(error).split())}\n")
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gensync_core", description=__doc__)
    commands = parser.add_subparsers(dest="stage", required=True)
    for stage in SPEAKER_STAGES:
        commands.add_parser(stage).add_argument("--speaker", required=True)
    for stage in SHARED_STAGES:
        commands.add_parser(stage)
    commands.add_parser("compile", help="compile the renderer's kernels now rather than on first use")
    commands.add_parser("synth").add_argument("--job", required=True)
    check = commands.add_parser("check")
    check.add_argument("video", type=Path)
    check.add_argument("--params", type=Path)
    export = commands.add_parser("export")
    export.add_argument("--speaker", required=True)
    export.add_argument("--out", type=Path, required=True)
    export.add_argument("--format", default="ply", choices=("ply", "splat", "compressed"))
    sample = commands.add_parser("sample")
    sample.add_argument("--name", required=True)
    sample.add_argument("--out", type=Path, required=True)
    sample.add_argument("--seconds", type=float, default=20.0)
    sample.add_argument("--size", type=int, default=256)
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--speech", type=Path)
    speech = commands.add_parser("speech")
    speech.add_argument("--out", type=Path, required=True)
    speech.add_argument("--seconds", type=float, default=8.0)
    speech.add_argument("--seed", type=int, default=0)
    speech.add_argument("--voice", default="a")
    return parser


def _dispatch(options: argparse.Namespace) -> None:
    project = Project(Path.cwd())
    if options.stage == "sample":
        from gensync_core.samples import make_sample

        make_sample(
            options.name, options.out, seconds=options.seconds, size=options.size, seed=options.seed, speech=options.speech
        )
    elif options.stage == "speech":
        from gensync_core.samples import make_speech

        make_speech(options.out, seconds=options.seconds, seed=options.seed, voice=options.voice)
    elif options.stage == "export":
        from gensync_core.stages.export import export

        export(project, options.speaker, options.out, options.format)
    elif options.stage == "compile":
        from gensync_core.training.warm_up import compile_kernels

        compile_kernels()
    else:
        _run_stage(project, options)


def _run_stage(project: Project, options: argparse.Namespace) -> None:
    if options.stage in OF_FOOTAGE:
        from gensync_core.media.container_process import start_ahead

        start_ahead()
    from gensync_core.params import load_params

    params = load_params(getattr(options, "params", None) or project.params_file)
    if options.stage not in WITHOUT_TORCH:
        _prepare_torch()
    if options.stage == "check":
        from gensync_core.stages.check import check

        sys.stdout.write(json.dumps(check(project, options.video, params).to_json()) + "\n")
        return
    stage = importlib.import_module(f"gensync_core.stages.{options.stage}")
    if options.stage in SHARED_STAGES:
        stage.run(project, params)
    elif options.stage == "synth":
        stage.run(project, options.job, params)
    else:
        stage.run(project, options.speaker, params)


def _prepare_torch() -> None:
    import torch

    torch.set_num_threads(1)  # more wait for each other more than they help, and would round differently; see render.threads
    # On CUDA gsplat's gradients differ from run to run anyway, and some operations are not to be had any other way.
    # Not `use_deterministic_algorithms`: that loads torch's compiler, too, for as long as all the rest of torch.
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")


_bars: dict = {}


def _terminal_sink(tick: Tick) -> None:
    """Rich bars where a person runs a stage by hand or through `dvc repro`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not _bars:
        _bars["progress"] = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        _bars["progress"].start()
    shown = _bars["progress"]
    if tick.job not in _bars:
        _bars[tick.job] = shown.add_task(tick.job, total=tick.total or None, note="")
    shown.update(_bars[tick.job], completed=tick.done, note=tick.note)
    if tick.done == tick.total:
        shown.refresh()
        if all(task.finished for task in shown.tasks):
            shown.stop()
            _bars.clear()


if __name__ == "__main__":
    sys.exit(main())
