"""Everything that a GPU is worth here, in one command of at most 8 minutes: ``python -m benchmarks.gpu``.

It needs PyTorch, SciPy and pydantic, and MONAI and nibabel for segmenting and loading; FLARE need not be installed. The
parts are done by importance, until the time is over:

- ``agreement``: one step of the product on the GPU against one on the processor, in three arithmetics;
- ``step``: seconds and peak memory of a training step in the ways of :mod:`benchmarks.ways`, with small and large
  crops, in float32 (convolutions in TensorFloat-32, PyTorch's choice) and bfloat16;
- ``loading``: the share of an epoch in which the GPU waits for batches;
- ``segmenting``: a volume of 240 x 240 x 155 voxels by sliding windows.

A part that fails or does not fit is a row with the reason. The report is written after every row. A row has ``part``,
what it is about (``way``, ``modalities``, ``crop``, ``precision``, ``side``, ``arithmetic``), and what was measured, or
``failed`` or ``left_out``. Measured are, of steps, ``seconds``, ``peak_mib``, the first ``loss``, ``ratio`` to the
straightforward formulation in the same precision and ``ratio_float32`` to the one in float32; of segmenting the times
and ratios too, and ``lowest_dice`` of a region against the straightforward formulation; of loading what
:func:`benchmarks.data.waiting` returns; of agreement, :class:`benchmarks.agreement.Agreement`.

On the processor, with ``--device cpu --quick``, the command can be tried out; memory is not measured there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.agreement import BOUNDS, Disagreement
from benchmarks.budget import Part, carry_out
from benchmarks.gpu_parts import Agreements, Loading, Segmenting, Steps
from benchmarks.gpu_tables import tables
from benchmarks.measure import arguments, command, describe, environment, write_report
from benchmarks.task import add_task_arguments
from benchmarks.ways import PRODUCT, STRAIGHTFORWARD, WAYS, Way
from fedmepd.cli.terminal import positive
from fedmepd.tasks.brats import BRATS, PROTOCOL_SUBSETS
from fedmepd.training.arithmetic import use_threads

PARTS = ("agreement", "step", "loading", "segmenting")
PRECISIONS = ("float32", "bfloat16")


@command
def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status: 1 if the GPU computes something else than the processor."""
    parser = _parser()
    options = parser.parse_args(given)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU: expected one, or --device cpu --quick to try the command out")
    use_threads(options.threads)
    if options.quick:
        options.width, options.crop, options.larger, options.steps = 4, 24, 32, 2
    here, rows = environment(), []
    sizes = {name: getattr(options, name) for name in ("width", "crop", "larger", "device", "steps", "minutes")}

    def done(row: dict[str, Any]) -> None:
        rows.append(row)
        found = next((f"{key.replace('_', ' ')}: {row[key]}" for key in ("failed", "left_out") if key in row), "done")
        about = (str(row[key]) for key in ("part", "way", "side", "arithmetic", "crop", "precision") if key in row)
        print(f"{' '.join(about)}, {' '.join(row['modalities'])}: {found}", file=sys.stderr, flush=True)
        write_report("gpu", options.json, here, rows, **sizes)

    with TemporaryDirectory() as folder:
        carry_out(parts(options, Path(folder)), 60 * options.minutes, done, time.monotonic)
    print(f"{describe(here)}\n\n{tables(rows)}")
    print(f"\nwrote {write_report('gpu', options.json, here, rows, **sizes)}")
    return 1 if any(row.get("failed", "").startswith(Disagreement.__name__) for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = arguments("Training, segmenting and loading on a GPU, in a fixed time.", pairs=None)
    add_task_arguments(parser, width=16, crop=80)
    parser.set_defaults(device="cuda")
    parser.add_argument("--larger", type=positive, default=128, help="side of the larger crops; default: 128")
    parser.add_argument("--steps", type=positive, default=10, help="measured steps of each way; default: 10")
    parser.add_argument("--minutes", type=float, default=7.5, help="time for everything; default: 7.5")
    parser.add_argument(
        "--part", action="append", dest="parts", choices=PARTS, help="to measure; may be repeated; default: all"
    )
    parser.add_argument(
        "--way",
        action="append",
        dest="ways",
        choices=[way.name for way in WAYS],
        help="of doing a step, besides the product and the straightforward formulation; may be repeated; default: all",
    )
    return parser


def parts(options: argparse.Namespace, folder: Path) -> list[Part]:
    """Returns all parts, the most important first.

    Args:
        options: of the command line.
        folder: for the files of cases and models.
    """
    everything, *others = options.subsets or [BRATS.modalities, min(PROTOCOL_SUBSETS, key=len)]
    steps, agreements = Steps(options), Agreements(options)
    loading, segmenting = Loading(options, folder / "loading"), Segmenting(options, folder)
    wanted = [way for way in WAYS if options.ways is None or way.name in options.ways]
    further = [way for way in wanted if way not in (STRAIGHTFORWARD, PRODUCT)]
    quick, slow = ([way for way in further if way.compiled == compiled] for compiled in (False, True))

    def of_steps(ways: Sequence[Way], modalities: tuple[str, ...], crop: int) -> list[Part]:
        return [steps.part(way, modalities, crop, precision) for precision in PRECISIONS for way in ways]

    # Without these two nothing could be compared.
    pair = (STRAIGHTFORWARD, PRODUCT)
    found = [agreements.part(everything, arithmetic) for arithmetic in BOUNDS]
    found += [part for crop in (options.crop, options.larger) for part in of_steps(pair, everything, crop)]
    found += [loading.part(everything)]
    found += segmenting.parts(everything, PRECISIONS)
    found += [part for modalities in others for part in of_steps(pair, modalities, options.crop)]
    found += [part for crop in (options.crop, options.larger) for part in of_steps(quick, everything, crop)]
    found += [part for crop in (options.crop, options.larger) for part in of_steps(slow, everything, crop)]
    return [part for part in found if options.parts is None or part.about["part"] in options.parts]


if __name__ == "__main__":
    sys.exit(main())
