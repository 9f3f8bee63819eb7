"""A project whose stages write slowly, so that a kill meets them at it; what each has to write is known beforehand."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from gensync_core.artefacts import sha256_of
from gensync_core.paths import Project
from gensync_core.speakers import Registry, Speaker

TARGETS = ["evaluate"]
LINES = 400

PIPELINE = {
    "vars": ["speakers.yaml"],
    "stages": {
        "ingest": {
            "foreach": "${speakers}",
            "do": {
                "cmd": "python stage.py ingest ${key} ${item.raw} data/speakers/cohort/${key}/clip",
                "deps": ["${item.raw}", "stage.py"],
                "params": ["gain"],
                "outs": ["data/speakers/cohort/${key}/clip"],
                "meta": {"retries": 1, "retry_delay_s": 0, "deadline_s": 60},
            },
        },
        "joint": {
            "cmd": "python stage.py joint all data/speakers/cohort models/shared",
            "deps": ["data/speakers/cohort", "stage.py"],
            "params": ["gain"],
            "outs": ["models/shared"],
            "meta": {"retries": 1, "retry_delay_s": 0, "deadline_s": 60},
        },
        "evaluate": {
            "foreach": "${speakers}",
            "do": {
                "cmd": "python stage.py evaluate ${key} models/shared reports/${key}/report",
                "deps": ["models/shared", "data/speakers/cohort/${key}/clip", "stage.py"],
                "params": ["gain"],
                "outs": ["reports/${key}/report"],
                "meta": {"retries": 1, "retry_delay_s": 0, "deadline_s": 60},
            },
        },
    },
}

STAGE = f"""
import hashlib, sys, time
from pathlib import Path
from gensync_core.artefacts import atomic_path
stage, name, source, target = sys.argv[1:]
source, target = Path(source), Path(target)
with open("runs.log", "a") as log:
    log.write(stage + "@" * (name != "all") + name * (name != "all") + "\\n")
files = sorted(p for p in source.rglob("[!.]*") if p.is_file()) if source.is_dir() else [source]
text = stage + name + Path("params.yaml").read_text() + "".join(p.read_text() for p in files)
line = hashlib.sha256(text.encode()).hexdigest() + "\\n"
with atomic_path(target) as temporary, temporary.open("w") as file:
    for number in range({LINES}):
        file.write(line)
        if number % 20 == 0:
            file.flush()
            time.sleep(0.03)
"""


def make_slow_project(folder: Path, speakers: Sequence[str]) -> Project:
    """Nothing of it has run yet."""
    project = Project(folder)
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n    site_cache_dir = {folder / '.site'}\n"
    )
    # Temporary files of a killed stage, as in the real project.
    (folder / ".dvcignore").write_text("/data/speakers/**/.*\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    (folder / "stage.py").write_text(STAGE)
    set_gain(project, 0)
    registry = Registry({})
    for name in speakers:
        raw = project.raw(name, ".mp4")
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_text(name)
        registry.speakers[name] = Speaker(id=name, raw=f"data/raw/{name}.mp4", sha256=sha256_of(raw), group="cohort")
    registry.save(project.speakers_file)
    return project


def set_gain(project: Project, gain: int) -> None:
    """Every stage has to run again for another gain."""
    project.params_file.write_text(f"gain: {gain}\n")


def expected_outs(project: Project) -> dict[str, str]:
    """What lies in the project once every stage has run: path -> content."""
    names = project.registry().ids()
    params = project.params_file.read_text()

    def written(stage: str, name: str, text: str) -> str:
        return (hashlib.sha256(f"{stage}{name}{params}{text}".encode()).hexdigest() + "\n") * LINES

    clips = {name: written("ingest", name, project.raw(name, ".mp4").read_text()) for name in names}
    shared = written("joint", "all", "".join(clips[name] for name in sorted(names)))
    return {
        **{f"data/speakers/cohort/{name}/clip": clip for name, clip in clips.items()},
        "models/shared": shared,
        **{f"reports/{name}/report": written("evaluate", name, shared) for name in names},
    }
