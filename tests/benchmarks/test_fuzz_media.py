"""The fuzz run sees what it is there to see; benchmarks are programs, so their folder is put on the path here."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

CONTENT = bytes(range(256)) * 40 + b"....moov....trak....stsz" + bytes(500)


@pytest.fixture
def mutations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import media_mutations

    return media_mutations


@pytest.fixture
def fuzz(mutations: ModuleType) -> ModuleType:
    import fuzz_media

    return fuzz_media


@pytest.fixture
def bench(fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Without the work of making real videos."""

    def make_files(folder: Path) -> None:
        folder.mkdir()
        for name in (*fuzz.VIDEOS, *fuzz.SOUNDS):
            (folder / name).write_bytes(CONTENT)

    monkeypatch.setattr(fuzz, "make_files", make_files)
    return fuzz.Bench(tmp_path)


def test_every_mutation_changes_a_file_and_repeats(mutations: ModuleType) -> None:
    for name in mutations.MUTATIONS:
        made = [mutations.mutated(CONTENT, name, random.Random(seed), [CONTENT[::-1]]) for seed in range(20)]
        again = [mutations.mutated(CONTENT, name, random.Random(seed), [CONTENT[::-1]]) for seed in range(20)]
        assert made == again
        assert (sum(one != CONTENT for one in made) > 10) == (name != "none"), name


def test_a_case_depends_on_its_seed_alone(fuzz: ModuleType) -> None:
    files = dict.fromkeys((*fuzz.VIDEOS, *fuzz.SOUNDS), CONTENT)
    cases = [fuzz.make_case(seed, files) for seed in range(200)]
    assert cases == [fuzz.make_case(seed, files) for seed in range(200)]
    assert {case.entry for case in cases} == set(fuzz.ENTRIES)
    assert {case.mutation for case in cases} == set(fuzz.MUTATIONS)


def test_what_is_left_behind_is_a_defect(fuzz: ModuleType, bench: "object", tmp_path: Path) -> None:
    taken = fuzz.Outcome("taken", "", 0.1)

    def judged(prepare: Callable[[Path], object], outcome: object = taken, entry: str = "sound") -> str:
        case = fuzz.Case(7, entry, "pcm.wav", "bits", CONTENT)
        folder = Path(bench.put(case)["folder"])
        prepare(folder)
        return bench.clear(case, outcome).result

    assert judged(lambda folder: (folder / "speech.wav").touch()) == "taken"
    assert judged(lambda folder: None) == fuzz.DEFECT, "success without what it promises"
    refused = fuzz.Outcome("refused", "FootageRejected", 0.1)
    assert judged(lambda folder: None, refused) == "refused"
    assert judged(lambda folder: (folder / "speech.wav").touch(), refused) == fuzz.DEFECT, "half an artefact"
    assert judged(lambda folder: (folder / "core").touch(), refused) == fuzz.DEFECT
    assert judged(lambda folder: (tmp_path / "tmp" / "forgotten.wav").touch(), refused) == fuzz.DEFECT
    (tmp_path / "tmp" / "forgotten.wav").unlink()
    assert judged(lambda folder: (folder / "input.wav").write_bytes(b"other"), refused) == fuzz.DEFECT, "the input was changed"


@pytest.mark.parametrize(
    ("code", "said"),
    [("os.kill(os.getpid(), 11)", "died: exit code -11"), ("time.sleep(60)", "no end within 1 s"), ("print('{}')", "")],
)
def test_a_worker_that_dies_or_hangs_is_a_defect(
    code: str, said: str, fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    answer = '{"result": "taken", "detail": "", "seconds": 0.1}'
    program.write_text(
        "import os, sys, time\nprint('{}', flush=True)\nsys.stdin.readline()\n"
        + (f"print('{answer}', flush=True)\nsys.stdin.readline()" if not said else code)
    )
    monkeypatch.setattr(fuzz, "__file__", str(program))
    monkeypatch.setattr(fuzz, "CASE_LIMIT_S", 1.0 if "sleep" in code else 20.0)
    worker = fuzz.Worker(tmp_path)
    try:
        outcome = worker.run({"entry": "sound"})
        assert outcome.result == ("taken" if not said else fuzz.DEFECT)
        assert said in outcome.detail
    finally:
        worker.end()
    assert not worker.alive


def test_an_error_of_another_kind_is_told_from_ours(
    mutations: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import media_cases

    from gensync_core.errors import FootageRejected

    def raising(error: Exception) -> Callable[[Path, Path], tuple[str, str]]:
        def call(path: Path, folder: Path) -> tuple[str, str]:
            raise error

        return call

    case = {"entry": "sound", "path": "a", "folder": "b"}
    monkeypatch.setitem(media_cases.ENTRY_CALLS, "sound", raising(FootageRejected("a: no")))
    assert media_cases.run_case(case) == ("refused", "FootageRejected")
    monkeypatch.setitem(media_cases.ENTRY_CALLS, "sound", raising(FootageRejected("a:\nno")))
    assert media_cases.run_case(case)[0] == media_cases.DEFECT
    monkeypatch.setitem(media_cases.ENTRY_CALLS, "sound", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        media_cases.run_case(case)


@pytest.mark.slow
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    import subprocess

    program = Path(__file__).parents[2] / "benchmarks" / "fuzz_media.py"
    command = [sys.executable, str(program), "--count", "30", "--seconds", "120", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
