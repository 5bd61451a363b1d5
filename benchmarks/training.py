"""Whether a short training comes to the same loss: ``python -m benchmarks.training``.

The straightforward formulation in float32 and the product in float32 and in bfloat16 train from the same weights on the
same crops of phantom heads, with the settings of the phantom preset (no dropout). Every seed has weights and crops of
its own. The product in float32 is another by rounding alone, so its differences from the straightforward loss
show what chance does; those of bfloat16 are to be compared with them, and with what the seeds change.

The report has a row for each window of steps: ``first_step``, and the mean loss over window and seeds of
``straightforward``, ``float32`` and ``bfloat16``. ``last`` holds for each of the three the mean loss of the last steps
of every seed, ``deviation`` the standard deviation of the straightforward ones, and ``difference`` for each of the
product's two the ``mean`` and the standard ``deviation`` over the seeds of its difference from them. ``seconds`` is the
mean time of a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

from benchmarks.measure import arguments, command, describe, environment, table, write_report
from benchmarks.straightforward import Straightforward
from benchmarks.task import Product, Task, add_task_arguments, synchronise
from fedmepd.cli.terminal import positive
from fedmepd.tasks.brats import BRATS
from fedmepd.training.arithmetic import use_threads

SIDES = ("straightforward", "float32", "bfloat16")
WINDOW, LAST = 20, 40


@command
def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    parser = arguments("Loss of a short training, straightforward formulation against product.", pairs=None)
    add_task_arguments(parser, width=8, crop=48)
    parser.add_argument("--batch", type=positive, default=2, help="crops in a batch; default: 2")
    parser.add_argument("--steps", type=positive, default=200, help="default: 200")
    parser.add_argument("--seeds", type=positive, default=3, help="trainings of each kind, at least 2; default: 3")
    options = parser.parse_args(given)
    if options.seeds < 2:
        parser.error("one seed shows no spread: expected --seeds 2 or more")
    if len(options.subsets or []) > 1:
        parser.error("expected one --subset at most")
    use_threads(options.threads)
    heads = 2 if options.quick else 8
    if options.quick:
        options.width, options.crop, options.batch, options.steps = 4, 24, 1, 3
    [modalities] = options.subsets or [BRATS.modalities]
    losses: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for seed in range(options.seeds):
        task = Task(
            modalities,
            options.width,
            options.crop,
            options.batch,
            device=options.device,
            preset="phantom",
            calibrating=False,
            seed=seed,
            heads=heads,
        )
        for side, (curve, step_seconds) in train(task, options.steps).items():
            losses[side].append(curve)
            seconds[side].append(step_seconds)
        last = ", ".join(f"{side} {fmean(losses[side][seed][-LAST:]):.4f}" for side in SIDES)
        print(f"seed {seed}, mean loss of the last {min(LAST, options.steps)} steps: {last}", flush=True)
    rows, summary = summarise(losses)
    here = environment()
    print(f"\nMean loss over {options.seeds} seeds in windows of {WINDOW} steps; {describe(here)}")
    print(f"{' '.join(modalities)}, width {options.width}, crop {options.crop}, batch {options.batch}\n")
    print(table(["steps", *SIDES], [[f"from {row['first_step']}", *(f"{row[s]:.4f}" for s in SIDES)] for row in rows]))
    print(f"\nMean loss of the last {min(LAST, options.steps)} steps, mean over the seeds (standard deviation)")
    print(f"- straightforward: {fmean(summary['last']['straightforward']):.4f} ({summary['deviation']:.4f})")
    for side, difference in summary["difference"].items():
        print(f"- {side} minus straightforward: {difference['mean']:+.4f} ({difference['deviation']:.4f})")
    size = {name: getattr(options, name) for name in ("width", "crop", "batch", "steps", "device")}
    times = {side: fmean(of) for side, of in seconds.items()}
    what = {"modalities": list(modalities), **size, "seeds": options.seeds, **summary, "seconds": times}
    print(f"wrote {write_report('training', options.json, here, rows, **what)}")
    return 0


def train(task: Task, steps: int) -> dict[str, tuple[list[float], float]]:
    """Trains all sides, step by step in turn; returns for each the loss of every step and the mean seconds of one."""
    trainers: dict[str, Straightforward | Product] = {
        "straightforward": task.straightforward(),
        "float32": replace(task, precision="float32").product(),
        "bfloat16": replace(task, precision="bfloat16").product(),
    }
    losses: dict[str, list[float]] = {side: [] for side in SIDES}
    working = dict.fromkeys(SIDES, 0.0)
    for number, batch in enumerate(task.batches(steps), 1):
        for side, trainer in trainers.items():
            started = time.perf_counter()
            losses[side].append(trainer.step(batch))
            synchronise(task.device)
            working[side] += time.perf_counter() - started
        if number % WINDOW == 0:
            print(f"seed {task.seed}, step {number} of {steps}", flush=True)
    return {side: (losses[side], working[side] / steps) for side in SIDES}


def summarise(losses: dict[str, list[list[float]]]) -> tuple[list[dict], dict]:
    """Returns the report's rows, and its ``last``, ``deviation`` and ``difference``.

    Args:
        losses: by side, for each seed the loss of every step.
    """
    steps = len(losses["straightforward"][0])
    rows = [
        {
            "first_step": start + 1,
            **{
                side: fmean(loss for curve in curves for loss in curve[start : start + WINDOW])
                for side, curves in losses.items()
            },
        }
        for start in range(0, steps, WINDOW)
    ]
    last = {side: [fmean(curve[-LAST:]) for curve in curves] for side, curves in losses.items()}
    difference = {}
    for side in SIDES[1:]:
        of_seeds = [own - plain for own, plain in zip(last[side], last["straightforward"], strict=True)]
        difference[side] = {"mean": fmean(of_seeds), "deviation": stdev(of_seeds)}
    return rows, {"last": last, "deviation": stdev(last["straightforward"]), "difference": difference}


if __name__ == "__main__":
    sys.exit(main())
