"""Peak memory of a training step: ``python -m benchmarks.memory``.

Each measurement is a new process that does two steps (the second has the optimizer's state beside it), by the
straightforward formulation or by the product, from the same weights on the same crop of a phantom head. On the
processor the figures are the process' resident memory, on a GPU what PyTorch has allocated there.

The report has a row for each modality subset, ``modalities``: the peak as ``straightforward_mib``, ``product_mib`` and
``ratio``; the peak without what was held before the first step (Python, PyTorch, weights) as
``straightforward_above_mib``, ``product_above_mib`` and ``ratio_above``; each with median, lowest and highest.
``mean_ratio`` is the mean of the median ratios over the sites of the protocol.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from statistics import fmean

import torch

from benchmarks.measure import (
    MIB,
    Pairs,
    Run,
    Spread,
    alternate,
    arguments,
    command,
    describe,
    environment,
    in_fresh_process,
    table,
    write_report,
)
from benchmarks.task import Task, add_precision_argument, add_task_arguments, sites
from fedmepd.training.arithmetic import use_threads

# Losses of the two sides may differ by this share: dropout, and bfloat16.
LOSS_TOLERANCE = 0.05


@command
def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    parser = arguments("Peak memory of a training step, straightforward formulation against product.")
    add_task_arguments(parser, width=16, crop=80)
    add_precision_argument(parser)
    options = parser.parse_args(given)
    use_threads(options.threads)
    if options.quick:
        options.width, options.crop = 4, 24
    rows = []
    for modalities in dict.fromkeys(sites(options)):
        task = Task(modalities, options.width, options.crop, precision=options.precision, device=options.device)
        rows.append(_row(modalities, peaks(task, options.pairs, options.threads)))
        print(f"{' '.join(modalities)}: done", flush=True)
    ratios = {tuple(row["modalities"]): row["ratio"]["median"] for row in rows}
    mean = fmean(ratios[modalities] for modalities in sites(options))
    here = environment()
    arithmetic = task.arithmetic()
    print(f"\nPeak memory, width {options.width}, crop {options.crop}, batch 1, {arithmetic}, {options.device}")
    print(f"{describe(here)}; median (lowest-highest) of {options.pairs} pairs\n")
    print(_table(rows))
    print(f"\nmean of the sites' ratios: {mean:.2f}")
    size = {name: getattr(options, name) for name in ("width", "crop", "device", "pairs")}
    path = write_report("memory", options.json, here, rows, **size, arithmetic=arithmetic, mean_ratio=mean)
    print(f"wrote {path}")
    return 0


def peaks(task: Task, pairs: int, threads: int) -> Pairs:
    """Returns pairs of :class:`~benchmarks.measure.Run`, straightforward and product.

    Raises:
        RuntimeError: the two sides' first losses differ.
    """

    def run(side: str) -> Callable[[], Run]:
        return lambda: _on_gpu(in_fresh_process(prepare, task, side, threads))

    found = alternate(pairs, run("straightforward"), run("product"), warmup=0, measure=lambda one: one())
    first, second = found.first[0].result["loss"], found.second[0].result["loss"]
    if not abs(second / first - 1) <= LOSS_TOLERANCE:
        raise RuntimeError(f"losses of one step differ: straightforward {first:.4f}, product {second:.4f}")
    return found


def prepare(task: Task, side: str, threads: int) -> Callable[[], dict]:
    """Makes two training steps ready.

    Args:
        task: the site.
        side: ``straightforward`` or ``product``.
        threads: of the processor; 0 for PyTorch's choice.

    Returns:
        the work, which returns the first step's ``loss`` and, on a GPU, memory there: ``held_mib`` and ``peak_mib``.
    """
    use_threads(threads)
    trainer = task.product() if side == "product" else task.straightforward()
    [batch] = task.batches(1)

    def work() -> dict:
        gpu = torch.device(task.device).type == "cuda"
        held = torch.cuda.memory_allocated(task.device) if gpu else None
        loss, _ = trainer.step(batch), trainer.step(batch)
        if not gpu:
            return {"loss": loss}
        return {
            "loss": loss,
            "held_mib": held / MIB,
            "peak_mib": torch.cuda.max_memory_allocated(task.device) / MIB,
        }

    return work


def _on_gpu(run: Run) -> Run:
    """The same run, with memory of the GPU instead of the process where one was used."""
    if "peak_mib" not in run.result:
        return run
    return Run(run.result, run.seconds, run.result["held_mib"], run.result["peak_mib"])


def _row(modalities: tuple[str, ...], runs: Pairs) -> dict:
    peak, above = runs.each(lambda run: run.peak_mib), runs.each(lambda run: run.above_mib)
    spreads = {
        "straightforward_mib": Spread.of(peak.first),
        "product_mib": Spread.of(peak.second),
        "ratio": peak.ratio(),
        "straightforward_above_mib": Spread.of(above.first),
        "product_above_mib": Spread.of(above.second),
        "ratio_above": above.ratio(),
    }
    return {"modalities": list(modalities), **{name: spread.as_dict() for name, spread in spreads.items()}}


def _table(rows: list[dict]) -> str:
    columns = {
        "straightforward MiB": ("straightforward_mib", 0),
        "product MiB": ("product_mib", 0),
        "ratio": ("ratio", 2),
        "straightforward, above held": ("straightforward_above_mib", 0),
        "product, above held": ("product_above_mib", 0),
        "ratio ": ("ratio_above", 2),
    }
    cells = [
        [" ".join(row["modalities"]), *(Spread(**row[key]).text(digits) for key, digits in columns.values())]
        for row in rows
    ]
    return table(["modalities", *columns], cells)


if __name__ == "__main__":
    sys.exit(main())
