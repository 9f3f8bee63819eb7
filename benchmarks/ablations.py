"""What does each named component of the model earn? The model is trained without it, everything else as it is.

    python benchmarks/ablations.py [--clips FILE ...] [--speakers ID ...] [--work FOLDER] [--size 128] [--steps 600]
        [--torso-steps 120] [--frames 75] [--seeds 0 1 2] [--jobs 2] [--only NAME ...] [--quick] [--results FOLDER]
        [--json FILE]

One variant and one seed is one joint training of all speakers, in a fresh process with one thread, and their held-out frames
(the first `--frames` of each clip's last eleventh, with controls). A seed decides all that is random in a training; all
variants of a seed see the same frames in the same order. "no coarse start" trains the Gaussians as they were lifted out of a
few frames. "shuffled code" is no training of its own: speakers of the full model are rendered with one another's code.

Figures are means over speakers, ± the standard deviation over seeds: PSNR in dB, LMD in px at 512 (lower is closer), gap (the
lip-sync figure: aperture correlation with the true sound less that with shuffled sound), jitter (1 trembles as the footage
does) and the training's CPU seconds. Differences are variant less full model, seed by seed, ± their standard error, see
`paired_differences`.

A component helps, or hurts, in PSNR (of the full frame), LMD or gap if that differs by more than three standard errors.

A variant and seed that is done is kept in the laboratory, for this code and these parameters: a killed run goes on. CSV: a row
for each variant, seed and speaker; PNG: the differences. With the defaults, three clips at 128 px and two idle cores it takes
half an hour.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from laboratory import RESULTS, Laboratory, Overrides, Trained, add_arguments, table, write_results
from matplotlib.figure import Figure
from paired_differences import Measure, differences, gains_and_losses, seed_means, shown

from gensync_core.artefacts import read_json, write_json
from gensync_core.gaussians.rasterize import choose_backend
from gensync_core.training.coarse import initial_state

FULL, SHUFFLED = "full model", "shuffled code"
QUICK = {"steps": 20, "torso_steps": 4, "frames": 6}


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """The model without one component, or with one more where `adds`.

    Attributes:
        name: of the variant.
        component: what it lacks or adds.
        overrides: of the parameters.
        lifted: Gaussians start as they were lifted out of frames, without the coarse fit.
        adds: whether the component is there in the variant and not in the full model.
    """

    name: str
    component: str
    overrides: Overrides = field(default_factory=dict)
    lifted: bool = False
    adds: bool = False


VARIANTS = (
    Variant(name=FULL, component=""),
    Variant(name="dense planes", component="hash tri-plane", overrides={"model": {"triplane": "dense"}}),
    Variant(name="no attention", component="spatial-audio attention", overrides={"model": {"attention": False}}),
    Variant(name="no mouth window", component="mouth window", overrides={"model": {"mouth_radius": 0.0}}),
    Variant(name="mean and opacity", component="moving scale and quat", overrides={"model": {"deform": ["mean", "opacity"]}}),
    Variant(name="fusion add", component="product of code and audio", overrides={"model": {"fusion": "add"}}),
    Variant(name="fusion none", component="code in the disentanglement", overrides={"model": {"fusion": "none"}}),
    Variant(name="smoothing on", component="temporal smoothing", overrides={"model": {"smoothing": True}}, adds=True),
    Variant(name="no feature noise", component="feature noise", overrides={"joint": {"feature_noise": 0.0}}),
    Variant(name="no torso field", component="torso field", overrides={"model": {"torso_field": False}}),
    Variant(name="no coarse start", component="coarse start", lifted=True),
)
COMPONENTS = {variant.name: variant.component for variant in VARIANTS} | {SHUFFLED: "a code of one's own"}
ADDING = {variant.name for variant in VARIANTS if variant.adds}
MEASURES = (
    Measure("psnr_full", "PSNR", 2, more_is_better=True),
    Measure("psnr_head_over_truth", "PSNR head", 2),
    Measure("psnr_mouth", "PSNR mouth", 2),
    Measure("lmd_px512", "LMD", 2, more_is_better=False),
    Measure("aperture_r_gap", "gap", 3, more_is_better=True),
    Measure("jitter_ratio", "jitter", 3),
    Measure("cpu_seconds", "CPU s", 1),
)


def measure(laboratory: Laboratory, speakers: Sequence[str], variant: Variant, seed: int) -> list[dict[str, Any]]:
    """Train a variant in this process and score everybody, the full model also with shuffled codes; one row a speaker."""
    laboratory = replace(laboratory, backend=choose_backend(laboratory.params.render))
    laboratory.rehearse(speakers[0])
    starts = None
    if variant.lifted:
        params, device = laboratory.params, laboratory.backend.device
        sizes = params.coarse, params.model.identity_size
        starts = {speaker: initial_state(laboratory.clip(speaker), *sizes, seed, device) for speaker in speakers}
    trained = laboratory.train(speakers, seed=seed, starts=starts)
    rows = [{**row, **trained.cost._asdict()} for row in _scores(laboratory, trained, variant.name, seed)]
    if variant.name == FULL and len(speakers) > 1:
        rows += _scores(laboratory, _shuffled(trained), SHUFFLED, seed)
    return rows


def _scores(laboratory: Laboratory, trained: Trained, name: str, seed: int) -> Iterator[dict[str, Any]]:
    for speaker in trained.states:
        yield {"variant": name, "seed": seed, "speaker": speaker, **laboratory.score(trained, speaker)}


def _shuffled(trained: Trained) -> Trained:
    """Everybody with the next speaker's code."""
    names = list(trained.states)
    states = {
        name: replace(trained.states[name], identity=trained.states[other].identity)
        for name, other in zip(names, [*names[1:], names[0]], strict=True)
    }
    return replace(trained, states=states)


@dataclass(frozen=True, slots=True)
class Bench:
    """Measures variants in processes of their own and keeps what is done."""

    laboratory: Laboratory
    speakers: Sequence[str]

    def rows(self, variant: Variant, seed: int) -> list[dict[str, Any]]:
        """Of one variant and seed, as they were kept or measured now."""
        laboratory = self.laboratory.with_params(variant.overrides)
        key = laboratory.digest(self.speakers, variant, seed)
        record = laboratory.project.root / ".gensync" / "ablations" / f"{variant.name.replace(' ', '-')}-{seed}-{key}.json"
        if not record.exists():
            record.parent.mkdir(parents=True, exist_ok=True)
            write_json(record, {"rows": laboratory.run_apart(measure, laboratory, self.speakers, variant, seed).result})
        return read_json(record)["rows"]

    def all_rows(self, variants: Sequence[Variant], seeds: Sequence[int], jobs: int) -> tuple[list[dict[str, Any]], list[str]]:
        """Of all variants and seeds, `jobs` at a time; and what failed."""
        for speaker in self.speakers:
            self.laboratory.clip(speaker)  # decodes it before several processes do
        tasks = [(variant, seed) for seed in seeds for variant in variants]
        rows, failed, start = [], [], time.monotonic()
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(self.rows, *task): task for task in tasks}
            for done, future in enumerate(as_completed(futures), 1):
                variant, seed = futures[future]
                error = future.exception()
                if error is None:
                    rows += future.result()
                else:
                    failed.append(f"{variant.name}, seed {seed}: {error}")
                spent = time.monotonic() - start
                print(
                    f"[{done}/{len(tasks)}] {variant.name}, seed {seed}: {'done' if error is None else error}; "
                    f"{spent:.0f} s, about {spent / done * (len(tasks) - done):.0f} s to go",
                    file=sys.stderr,
                    flush=True,
                )
        order = list(COMPONENTS)
        return sorted(rows, key=lambda row: (order.index(row["variant"]), row["seed"], row["speaker"])), failed


def verdict(variant: str, found: dict[str, Any]) -> str:
    """Whether the component that a variant lacks, or adds, helps."""
    sides = gains_and_losses(MEASURES, found, variant)
    if sides is None:
        return "-"
    helps, hurts = sides if variant in ADDING else reversed(sides)
    words = [f"{word} ({', '.join(titles)})" for word, titles in (("helps", helps), ("hurts", hurts)) if titles]
    return ", ".join(words) or "no difference"


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a variant: its figures, the differences from the full model, and what the component earns."""
    found = {one.key: differences(rows, FULL, one.key) for one in MEASURES}
    lines = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        figures = {one.key: shown(seed_means(rows, name, one.key), one.decimals) for one in MEASURES}
        away = {f"{one.key}_difference": shown(found[one.key].get(name), one.decimals, "+") for one in MEASURES}
        earned = {} if name == FULL else {"verdict": verdict(name, found)}
        lines.append({"variant": name, "component": COMPONENTS[name], **figures, **away, **earned})
    return lines


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A panel for each measure: differences from the full model, standard errors, and the seeds' own as small dots."""
    there = {row["variant"] for row in rows}
    names = [name for name in COMPONENTS if name in there - {FULL}]
    canvas = Figure(figsize=(13, 7), layout="constrained")
    for panel, one in zip(canvas.subplots(2, 3, sharey=True).flat, MEASURES, strict=False):
        found = differences(rows, FULL, one.key)
        for place, name in enumerate(names):
            if name in found:
                away = found[name]
                color = "tab:red" if one.more_is_better is not None and away.decided else "tab:gray"
                panel.plot(away.values, [place] * len(away.values), ".", color=color, alpha=0.4, markersize=4)
                panel.errorbar(away.mean, place, xerr=away.error, fmt="o", color=color, capsize=3)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_title(f"{one.title}, less the full model's")
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.3)
    canvas.savefig(path, dpi=110)


def report(rows: list[dict[str, Any]], results: Path, json_file: Path | None) -> None:
    """Print both tables; write CSV, PNG and what `--json` asks for."""
    lines = summary(rows)
    written = write_results("ablations", rows, json_file, results, {"summary": lines})
    draw(rows, written.with_suffix(".png"))
    name = ("variant", "variant", "s")
    print(table(lines, [name, *((one.key, one.title, "s") for one in MEASURES)]))
    away = [line for line in lines if line["variant"] != FULL]
    columns = [(f"{one.key}_difference", one.title, "s") for one in MEASURES]
    print(
        "\nless the full model\n" + table(away, [name, *columns, ("component", "component", "s"), ("verdict", "it ...", "s")])
    )
    print(f"\n{written}\n{written.with_suffix('.png')}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, size_px=128)
    parser.add_argument("--speakers", nargs="+", help="without: all of the laboratory")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="errors need two, better three")
    parser.add_argument("--steps", type=int, default=600, help="of a training on heads")
    parser.add_argument("--torso-steps", type=int, default=120, help="and on torsos after them")
    parser.add_argument("--frames", type=int, default=75, help="most held-out frames of a speaker")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, one core each")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these variants, and the full model")
    parser.add_argument("--results", type=Path, help="folder of the CSV and the PNG; without: docs/results")
    parser.add_argument(
        "--quick", action="store_true", help=f"a trial with the first seed: {QUICK}, results into the laboratory"
    )
    options = parser.parse_args()
    unknown = set(options.only) - set(COMPONENTS)
    if unknown:
        parser.error(f"there is no variant {', '.join(sorted(unknown))}, but {', '.join(COMPONENTS)}")
    if options.quick:
        vars(options).update(QUICK, seeds=options.seeds[:1])
    options.results = options.results or (options.work / "results" if options.quick else RESULTS)
    return options


def main() -> None:
    options = arguments()
    laboratory = Laboratory.open(options.work, options.clips, {"ingest": {"resolution": options.size}}).with_params(
        {
            "joint": {"steps": options.steps, "torso_steps": options.torso_steps},
            "evaluate": {"max_frames": options.frames, "controls": True},
        }
    )
    bench = Bench(laboratory, options.speakers or laboratory.speakers)
    variants = [variant for variant in VARIANTS if not options.only or variant.name in (FULL, *options.only)]
    rows, failed = bench.all_rows(variants, options.seeds, options.jobs)
    if rows:
        report(rows, options.results, options.json)
    if failed:
        raise SystemExit("failed:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
