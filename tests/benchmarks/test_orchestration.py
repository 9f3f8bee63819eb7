"""What `benchmarks/orchestration.py` measures, and its laws; benchmarks are programs, so their folder is put on the path."""

from pathlib import Path

import pytest
import yaml

from tasks.dvc_project import plan, read_lock


@pytest.fixture
def orchestration(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import orchestration

    return orchestration


@pytest.fixture
def many_speakers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import many_speakers

    return many_speakers


def row(orchestration, speakers: int, cpu_s: float, source: str = "measured"):
    return orchestration.Row(speakers=speakers, case="case", source=source, wall_s=2 * cpu_s, cpu_s=cpu_s, peak_mb=100.0)


def test_a_law_is_found_again(orchestration):
    assert orchestration.fit([8, 50, 200], [4 + 0.5 * n for n in (8, 50, 200)]) == pytest.approx((4, 0.5))


def test_a_cost_never_falls_with_more_speakers_nor_starts_below_nothing(orchestration):
    assert orchestration.fit([8, 50], [3.0, 2.0]) == (2.5, 0.0)
    assert orchestration.fit([10, 100], [1.0, 20.0]) == (0.0, pytest.approx(0.15))


def test_only_measured_rows_make_the_law(orchestration):
    book = orchestration.Book([row(orchestration, 8, 8.0)])
    assert book.expected("case", 100) is None
    book.rows += [row(orchestration, 50, 50.0), row(orchestration, 200, 9999.0, source="law")]
    assert book.expected("case", 1000).cpu_s == pytest.approx(1000)
    assert book.expected("case", 1000).wall_s == pytest.approx(2000)


def test_the_law_of_each_case_is_written_down(orchestration):
    book = orchestration.Book([row(orchestration, 8, 12.0), row(orchestration, 50, 54.0), row(orchestration, 200, 1.0, "sum")])
    assert orchestration.laws(book)["case"] == pytest.approx({"a": 4, "b": 1})
    assert orchestration.law_text({"a": 4.0, "b": 0.5}) == "4 + 0.5 N"


def test_stages_keep_all_but_their_commands(many_speakers):
    text = (Path(__file__).parents[2] / "dvc.yaml").read_text()
    real, idle = yaml.safe_load(text)["stages"], yaml.safe_load(many_speakers.idle_pipeline(text))["stages"]
    for name, stage in real.items():
        before, after = dict(stage.get("do", stage)), dict(idle[name].get("do", idle[name]))
        assert "python" in before.pop("cmd")
        assert "python" not in after.pop("cmd")
        assert after == before


@pytest.mark.slow
def test_copied_speakers_are_up_to_date_and_a_changed_one_is_not(many_speakers, tmp_path):
    project = many_speakers.make_project(tmp_path / "project", 3)
    assert project.registry().ids("adapted") == ["a00000", "a00001", "a00002"]
    assert len(read_lock(project)) == 3 * 6 + 1 + 3 * 7
    assert plan(project, ["joint", "adapt", "evaluate"]) == []
    project.raw("a00002", ".mp4").write_text("other footage")
    assert {node.address for node in plan(project, ["joint", "adapt", "evaluate"])} == {
        f"{stage}@a00002" for stage in ("ingest", "parse", "track", "audio", "coarse", "adapt", "evaluate")
    }


def test_a_project_without_a_pattern_is_refused(many_speakers, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        many_speakers.make_project(tmp_path / "project", 0)


def test_a_tree_costs_what_its_children_cost(monkeypatch, tmp_path, python_command):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import child_cost

    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7)); print(7)'])"
    done = child_cost.cost_of_tree(python_command(code), tmp_path, {})
    assert done.last_line == "7"
    assert done.cost.cpu_s > 0.1
    with pytest.raises(SystemExit, match="exit code 3"):
        child_cost.cost_of_tree(python_command("raise SystemExit(3)"), tmp_path, {})
