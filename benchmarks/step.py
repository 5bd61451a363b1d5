"""Time of one training step: ``python -m benchmarks.step``.

Forward pass, loss, backward pass and optimizer of a site with the paper's settings, for the modality subsets of the
protocol, by the straightforward formulation and by the product. Weights and input (crops of phantom heads) are the
same, and outputs, loss and gradients are compared first.

The report has a row for each modality subset: ``modalities``, ``agreement`` (see :mod:`benchmarks.agreement`), and
``straightforward_seconds``, ``product_seconds``, ``ratio`` with median, lowest and highest each. ``gflop`` is the
number of operations of the product's step in billions, ``forward_gflop`` that of its forward pass by part of the
network. ``matrix_rate`` is what products of two large matrices reach in the same arithmetic, in billions of operations
a second, measured before each row, and ``share`` what the step reaches of it in its median time. ``mean_ratio`` is the
mean of the median ratios over the sites of the protocol, ``lowest_single_modality_ratio`` the lowest of its sites with
one modality.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import fmean

import torch

from benchmarks.agreement import FLOAT64_CROP, Disagreement, compare, worst
from benchmarks.measure import Pairs, Spread, alternate, arguments, command, describe, environment, table, write_report
from benchmarks.operations import count, count_by_part, matrix_rate
from benchmarks.straightforward import Straightforward
from benchmarks.task import Product, Task, add_precision_argument, add_task_arguments, sites, synchronise
from fedmepd.cli.terminal import positive
from fedmepd.training.arithmetic import use_threads


@command
def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    parser = arguments("Time of one training step, straightforward formulation against product.")
    add_task_arguments(parser, width=16, crop=80)
    parser.add_argument("--batch", type=positive, default=1, help="crops in a batch; default: 1")
    add_precision_argument(parser)
    options = parser.parse_args(given)
    use_threads(options.threads)
    if options.quick:
        options.width, options.crop = 4, 24
    rows = []
    try:
        for modalities in dict.fromkeys(sites(options)):
            task = Task(
                modalities,
                options.width,
                options.crop,
                options.batch,
                precision=options.precision,
                device=options.device,
            )
            agreement = compare(task, slack=10.0 if options.quick else 1.0)
            side = 512 if options.quick else 2048
            rate = matrix_rate(getattr(torch, task.arithmetic()), task.device, side)
            rows.append(_row(task, agreement, time_steps(task, options.pairs), rate))
            print(_table(rows[-1:]), flush=True)
    except Disagreement as error:
        print(f"the product computes something else, nothing was measured: {error}", file=sys.stderr)
        return 1
    summary = summarise(rows, sites(options))
    here = environment()
    arithmetic = task.arithmetic()
    print(f"\nLargest differences after one step from the same weights (float64: crops of at most {FLOAT64_CROP})\n")
    print(worst([row["agreement"] for row in rows]))
    size = f"width {options.width}, crop {options.crop}, batch {options.batch}"
    print(f"\nOne training step, {size}, {arithmetic}, {options.device}")
    print(f"{describe(here)}; median (lowest-highest) of {options.pairs} pairs\n")
    print(_table(rows))
    print("\nBillions of operations of the product's forward pass, by part\n")
    print(_parts(rows))
    print(f"\nmean of the sites' ratios: {summary['mean_ratio']:.2f}")
    sizes = {name: getattr(options, name) for name in ("width", "crop", "batch", "device", "pairs")}
    path = write_report("step", options.json, here, rows, **sizes, arithmetic=arithmetic, **summary)
    print(f"wrote {path}")
    return 0


def time_steps(task: Task, pairs: int) -> Pairs:
    """Returns the seconds of training steps by the straightforward formulation and by the product."""
    [batch] = task.batches(1)
    first, second = task.straightforward(), task.product()

    def step(side: Straightforward | Product) -> None:
        side.step(batch)
        synchronise(task.device)

    return alternate(pairs, lambda: step(first), lambda: step(second))


def _row(task: Task, agreement: dict, times: Pairs, rate: float) -> dict:
    [batch] = task.batches(1)
    product = task.product()
    gflop = count(lambda: product.step(batch))
    forward = count_by_part(lambda: product.network.training_outputs(batch.images.to(task.device), task.modalities))
    seconds = Spread.of(times.second)
    return {
        "modalities": list(task.modalities),
        "agreement": agreement,
        "straightforward_seconds": Spread.of(times.first).as_dict(),
        "product_seconds": seconds.as_dict(),
        "ratio": times.ratio().as_dict(),
        "gflop": gflop,
        "forward_gflop": forward,
        "matrix_rate": rate,
        "share": gflop / seconds.median / rate,
    }


def summarise(rows: list[dict], of: Sequence[tuple[str, ...]]) -> dict[str, float | None]:
    """Returns the mean of the median ratios over all sites, and the lowest of those with one modality."""
    ratios = {tuple(row["modalities"]): row["ratio"]["median"] for row in rows}
    single = [ratios[modalities] for modalities in of if len(modalities) == 1]
    return {
        "mean_ratio": fmean(ratios[modalities] for modalities in of),
        "lowest_single_modality_ratio": min(single, default=None),
    }


def _table(rows: list[dict]) -> str:
    cells = []
    for row in rows:
        values = [Spread(**row[key]) for key in ("straightforward_seconds", "product_seconds", "ratio")]
        more = [f"{row['gflop']:.1f}", f"{row['matrix_rate']:.0f}", f"{row['share']:.0%}"]
        cells.append([" ".join(row["modalities"]), *(value.text() for value in values), *more])
    headers = ["modalities", "straightforward s", "product s", "ratio", "GFLOP", "matrix GFLOP/s", "share of it"]
    return table(headers, cells)


def _parts(rows: list[dict]) -> str:
    parts = list(rows[0]["forward_gflop"])
    cells = [[" ".join(row["modalities"]), *(f"{row['forward_gflop'][part]:.1f}" for part in parts)] for row in rows]
    return table(["modalities", *parts], cells)


if __name__ == "__main__":
    sys.exit(main())
