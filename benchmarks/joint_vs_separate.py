"""How much less training do speakers need together than one by one, for the same held-out quality?

    python benchmarks/joint_vs_separate.py [--clips FILE ...] [--speakers ID ...] [--seeds 0 1] [--quick]
        [--separate-steps 150 300 ...] [--joint-steps 300 600 ...] [--standard STEPS] [--work DIR] [--results DIR] [--json FILE]

The mark is GenSync's headline: 6.8 times less training in all at equal quality.

- separate: every speaker gets a network of its own; schedules are of so many steps for each speaker;
- joint: one network for all; schedules are of so many steps in all.

Both start from the same coarse Gaussians, whose cost is not counted, and differ in nothing but who is trained together. A step
sees as many images in both; a joint one learns landmark motion of two speakers and swaps their identities, so it takes longer.
Steps on torsos follow in the proportion of `params.yaml`. The quality to reach is that of `separate` with its longest schedule,
by default the one that `params.yaml` trains a cohort with, or by `--standard`. Every training runs in a fresh process with one
thread and is scored on all held-out frames, with controls; one that is done is kept in the laboratory, so that a killed run
goes on. CPU seconds suffer less from busy neighbours than wall-clock. CSV: one row for each speaker of each training, with the
cost of the whole training.
"""

import argparse

from finished_trainings import Training
from laboratory import Laboratory
from quality_curves import QUICK_STEPS, add_arguments, open_archive, report

from gensync_core.artefacts import read_json

SEPARATE_STEPS = (150, 300, 600, 1500)
JOINT_STEPS = (300, 600, 1200, 2400, 4800)
MARK = 6.8


def coarse_seconds(laboratory: Laboratory, speakers: tuple[str, ...]) -> float | None:
    """Wall-clock that the coarse starts took, where this laboratory fitted them itself."""
    records = [laboratory.project.scratch.parent / "runs" / f"coarse-{speaker}.json" for speaker in speakers]
    if not all(record.exists() for record in records):
        return None
    return sum(read_json(record)["seconds"] for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, seeds=[0])
    parser.add_argument("--speakers", nargs="+", help="without: all of the laboratory")
    parser.add_argument("--separate-steps", type=int, nargs="+", help=f"for each speaker; without: {SEPARATE_STEPS}")
    parser.add_argument("--joint-steps", type=int, nargs="+", help=f"in all; without: {JOINT_STEPS}")
    arguments = parser.parse_args()
    separate_steps = arguments.separate_steps or (QUICK_STEPS if arguments.quick else SEPARATE_STEPS)
    joint_steps = arguments.joint_steps or (QUICK_STEPS if arguments.quick else JOINT_STEPS)
    if arguments.standard not in (None, *separate_steps):
        parser.error("--standard must be one of --separate-steps")
    archive = open_archive(arguments)
    speakers = tuple(arguments.speakers or archive.laboratory.speakers)
    if len(speakers) < 2:
        parser.error("one speaker cannot be trained jointly: name more --clips or --speakers")
    separate = [
        Training(speakers=(speaker,), steps=steps, seed=seed)
        for seed in arguments.seeds
        for steps in sorted(separate_steps)
        for speaker in speakers
    ]
    joint = [Training(speakers=speakers, steps=steps, seed=seed) for seed in arguments.seeds for steps in sorted(joint_steps)]
    done = archive.finish([*separate, *joint])
    seconds = coarse_seconds(archive.laboratory, speakers)
    report(
        "joint_vs_separate",
        f"{len(speakers)} speakers at {arguments.size} px, one by one and jointly",
        arguments,
        ("separate", done[: len(separate)]),
        ("joint", done[len(separate) :]),
    )
    print(f"mark: {MARK} times less training in all")
    print("coarse starts, the same for both and not counted" + ("" if seconds is None else f": {seconds:.0f} s wall-clock"))


if __name__ == "__main__":
    main()
