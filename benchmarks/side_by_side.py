"""A step of fusion training on one thread and on several: ``python -m benchmarks.side_by_side``.

On one thread, the batch goes through the network at once. On several, every sample has a thread of its own
(:mod:`fedmepd.training.passes`). The sizes are those of the default job. The report has one row: ``threads``,
``one_seconds``, ``several_seconds`` and ``ratio`` with median, lowest and highest each.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.measure import Spread, alternate, arguments, command, describe, environment, table, write_report
from benchmarks.task import Task
from fedmepd.cli.terminal import positive
from fedmepd.tasks.brats import BRATS
from fedmepd.training.arithmetic import use_threads


@command
def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    parser = arguments("Time of a step of fusion training, on one thread and with a sample on each thread.")
    parser.add_argument("--batch", type=positive, default=2, help="crops in a batch; default: 2")
    options = parser.parse_args(given)
    width, crop = (4, 24) if options.quick else (8, 32)
    threads = options.threads or options.batch
    task = Task(BRATS.modalities, width, crop, options.batch, preset="phantom")
    [batch] = task.batches(1)
    product = task.product()
    # The fusion site's network has none.
    product.network.calibration = None

    def step(of_step: int) -> None:
        use_threads(of_step)
        product.step(batch)

    pairs = alternate(options.pairs, lambda: step(1), lambda: step(threads), warmup=2)
    use_threads(threads)
    here = environment()
    one, several = Spread.of(pairs.first), Spread.of(pairs.second)
    print(f"A step of fusion training, width {width}, crop {crop}, batch {options.batch}, {task.arithmetic()}")
    print(f"{describe(here)}; median (lowest-highest) of {options.pairs} pairs\n")
    cells = [threads, one.text(), several.text(), pairs.ratio().text()]
    print(table(["threads", "on one thread, s", "side by side, s", "ratio"], [cells]))
    row = {
        "threads": threads,
        "one_seconds": one.as_dict(),
        "several_seconds": several.as_dict(),
        "ratio": pairs.ratio().as_dict(),
    }
    path = write_report("side_by_side", options.json, here, [row], width=width, crop=crop, batch=options.batch)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
