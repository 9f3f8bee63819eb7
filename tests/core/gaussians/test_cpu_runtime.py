import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gensync_core.gaussians.backends import cpu_runtime
from gensync_core.gaussians.backends.cpu_runtime import run_in_chunks


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("num_items", [0, 1, 7, 100])
def test_every_item_is_done_once(threads, num_items):
    counts = np.zeros(num_items, np.int64)

    def count(first: int, last: int) -> None:
        counts[first:last] += 1

    run_in_chunks(count, num_items, threads=threads)
    assert (counts == 1).all()


def test_an_error_in_any_thread_reaches_the_caller():
    def fail(first: int, last: int) -> None:
        raise RuntimeError(f"item {first}")

    with pytest.raises(RuntimeError, match="item"):
        run_in_chunks(fail, 50, threads=2)


def test_callers_in_several_threads_do_not_wait_for_each_other_forever():
    totals = []

    def caller() -> None:
        done = np.zeros(200)

        def work(first: int, last: int) -> None:
            done[first:last] = 1

        for _ in range(50):
            run_in_chunks(work, 200, threads=3)
        totals.append(done.sum())

    callers = [threading.Thread(target=caller, daemon=True) for _ in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join(timeout=30)
    assert totals == [200] * 4


def test_a_forked_child_gets_threads_of_its_own():
    run_in_chunks(lambda first, last: None, 50, threads=2)
    child = os.fork()
    if child == 0:
        run_in_chunks(lambda first, last: None, 50, threads=2)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


class TestKernelCache:
    def test_read_only_places_are_passed_over_in_turn(self, monkeypatch, tmp_path):
        monkeypatch.setattr(cpu_runtime.numba.config, "CACHE_DIR", "")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
        refused, real = [], Path.mkdir

        def mkdir(self: Path, *arguments, **options) -> None:
            if any(str(self).startswith(place) for place in refused):
                raise PermissionError(13, "read-only", str(self))
            real(self, *arguments, **options)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        package = str(Path(cpu_runtime.__file__).parent)
        found = []
        for place in ("nowhere", str(tmp_path / "user"), package, "/"):
            refused.append(place)
            cpu_runtime.cache_folder.cache_clear()
            found.append(cpu_runtime.cache_folder())
        cpu_runtime.cache_folder.cache_clear()
        assert str(found[0]).startswith(str(tmp_path / "user" / "gensync" / "kernels-"))
        assert str(found[1]).startswith(package)
        assert found[2] is not None
        assert found[3] is None

    def test_copies_of_a_source_share_what_was_compiled(self, tmp_path):
        """Every workspace has a copy of the code: it must not compile for a minute again."""
        script = (
            "import numpy as np\n"
            "from gensync_core.gaussians.backends import cpu_runtime\n"
            "@cpu_runtime.kernel\n"
            "def double(first, last, values):\n"
            "    for i in range(first, last):\n"
            "        values[i] *= 2\n"
            "double(0, 10, np.ones(10))\n"
            "print(sum(double.stats.cache_hits.values()))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        hits = []
        for copy in ("one", "two"):
            path = tmp_path / copy / "folder" / "doubling.py"
            path.parent.mkdir(parents=True)
            path.write_text(script)
            run = [sys.executable, path]
            hits.append(subprocess.run(run, check=True, env=environment, timeout=120, stdout=subprocess.PIPE, text=True).stdout)
        assert hits == ["0\n", "1\n"]

    def test_kernels_compile_and_run_without_any_cache(self, tmp_path):
        """A process that finds no writable folder still works: it only compiles each time."""
        (tmp_path / "doubling.py").write_text(
            "import numpy as np\n"
            "from gensync_core.gaussians.backends import cpu_runtime\n"
            "cpu_runtime.cache_folder = lambda: None\n"
            "@cpu_runtime.kernel\n"
            "def double(first, last, values):\n"
            "    for i in range(first, last):\n"
            "        values[i] *= 2\n"
            "values = np.ones(100)\n"
            "cpu_runtime.run_in_chunks(double, 100, values, threads=2)\n"
            "assert (values == 2).all()\n"
        )
        root = Path(__file__).parents[3]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        subprocess.run([sys.executable, tmp_path / "doubling.py"], check=True, env=environment, timeout=120)


def test_where_numba_does_not_load_the_error_names_the_way_out_and_the_reference_renders():
    """Losses and the tri-plane go on in plain torch; nothing falls back silently."""
    script = """
import sys
sys.modules["numba"] = None
import torch
from gensync_core.errors import UsageError
from gensync_core.gaussians.rasterize import choose_backend, rasterize
from gensync_core.gaussians.render_params import RenderParams
from gensync_core.losses.photometric import l1_ssim
from gensync_core.model.hash_triplane import HashTriplane

try:
    choose_backend(RenderParams(backend="auto", threads=1))
except UsageError as error:
    assert "numba" in str(error) and "render.backend: reference" in str(error), error
else:
    raise SystemExit("no error")
backend = choose_backend(RenderParams(backend="reference", threads=1))
means = torch.zeros(1, 3, requires_grad=True)
view = torch.eye(4)[None]
view[0, 2, 3] = 2
image = rasterize(
    means, torch.ones(1, 4), torch.full((1, 3), 0.1), torch.ones(1), torch.ones(1, 3), view, torch.eye(3)[None] * 16, 16, 16,
    backend=backend,
).image[0]
field = HashTriplane(levels=2, base_resolution=4, finest_resolution=8, log2_table_size=6)
(l1_ssim(image, torch.zeros_like(image)) + field(means).sum()).backward()
assert torch.isfinite(means.grad).all()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)
