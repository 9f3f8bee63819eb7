"""How soon is a new speaker ready: adapted to a network that others trained, or with a network of its own from scratch?

    python benchmarks/adapt_vs_scratch.py [--clips FILE ...] [--new SPEAKER] [--seconds 8] [--seeds 0 1] [--quick]
        [--adapt-steps 30 60 ...] [--scratch-steps 150 300 ...] [--cohort-steps 1500] [--standard STEPS]
        [--work DIR] [--results DIR] [--json FILE]

The mark is equal quality in a seventh of the time.

- scratch: a network, Gaussians and code of the new speaker alone;
- adapt: Gaussians, code and aligner against the frozen network of all other speakers of the laboratory. That one is trained
  once and kept; its cost is told, but not counted.

Both start from the same coarse Gaussians, whose cost is not counted, and train on the first `--seconds` of the new speaker's
clip at most (the coarse start has seen all of the clip that is not held out). Steps on torsos follow in the proportion of
`params.yaml`. The quality to reach is that of `scratch` with its longest schedule, or with `--standard`. Every training runs in
a fresh process with one thread and is scored on all held-out frames, with controls; one that is done is kept in the
laboratory, so that a killed run goes on. CSV: one row for each training.
"""

import argparse

from finished_trainings import Training
from quality_curves import QUICK_STEPS, add_arguments, open_archive, report

ADAPT_STEPS = (30, 60, 125, 250, 500, 1000)
SCRATCH_STEPS = (150, 300, 600, 1500)
COHORT_STEPS = 1500
SECONDS = 8.0
MARK = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, seeds=[0, 1])
    parser.add_argument("--new", help="the new speaker; without: the one with the shortest clip")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the new speaker's clip to train on at most")
    parser.add_argument("--adapt-steps", type=int, nargs="+", help=f"without: {ADAPT_STEPS}")
    parser.add_argument("--scratch-steps", type=int, nargs="+", help=f"without: {SCRATCH_STEPS}")
    parser.add_argument("--cohort-steps", type=int, help=f"of the others' network; without: {COHORT_STEPS}")
    arguments = parser.parse_args()
    adapt_steps = arguments.adapt_steps or (QUICK_STEPS if arguments.quick else ADAPT_STEPS)
    scratch_steps = arguments.scratch_steps or (QUICK_STEPS if arguments.quick else SCRATCH_STEPS)
    cohort_steps = arguments.cohort_steps or (QUICK_STEPS[-1] if arguments.quick else COHORT_STEPS)
    if arguments.standard not in (None, *scratch_steps):
        parser.error("--standard must be one of --scratch-steps")
    archive = open_archive(arguments)
    laboratory = archive.laboratory
    new = arguments.new or min(laboratory.speakers, key=lambda speaker: laboratory.clip(speaker).num_frames)
    others = tuple(speaker for speaker in laboratory.speakers if speaker != new)
    if not others:
        parser.error("there is nobody else in the laboratory whose network could be adapted to: name more --clips")
    cohort = Training(speakers=others, steps=cohort_steps, seed=0, kept=True)
    common = {"speakers": (new,), "seconds": arguments.seconds}
    scratch = [Training(**common, steps=steps, seed=seed) for seed in arguments.seeds for steps in sorted(scratch_steps)]
    adapt = [
        Training(**common, steps=steps, seed=seed, base=cohort) for seed in arguments.seeds for steps in sorted(adapt_steps)
    ]
    done = archive.finish([cohort, *scratch, *adapt])
    report(
        "adapt_vs_scratch",
        f"{new} at {arguments.size} px, from scratch and adapted to a network of {len(others)} others",
        arguments,
        ("scratch", done[1 : 1 + len(scratch)]),
        ("adapt", done[1 + len(scratch) :]),
    )
    cost = done[0].cost
    print(f"mark: a ratio of {MARK}")
    print(
        f"the others' network, once and not counted: {cohort_steps} steps, {cost.images} images, "
        f"{cost.cpu_seconds:.0f} CPU s, {cost.seconds:.0f} s wall-clock, {done[0].peak_mb:.0f} MiB"
    )


if __name__ == "__main__":
    main()
