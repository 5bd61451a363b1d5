"""Hours of the paper's protocol on this machine, from measured steps: ``python -m benchmarks.paper_hours brats2018``.

A training step of each modality subset is measured on phantom heads of real size, with the settings of the plan, and
multiplied by the steps of a round. Validation and tests are not in it: with a validation every 20 rounds these are a
few per cent. One process trains the sites one after the other, as `fedmepd compare run` does.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import command, describe, environment, seconds, table
from benchmarks.task import Task, synchronise
from fedmepd.cli.terminal import positive
from fedmepd.config import Settings
from fedmepd.data.distribution import protocol_plan
from fedmepd.data.splits import part_sizes
from fedmepd.experiments.plan import Plan, read_plan
from fedmepd.job_settings import make_settings
from fedmepd.tasks.brats import BRATS
from fedmepd.training.arithmetic import use_threads

PLANS = Path(__file__).parent / "plans"
PROTOCOLS = ("brats2018", "brats2020")


@dataclass(frozen=True)
class Work:
    """The steps of a round at a site, or at the fusion site.

    Attributes:
        name: of the site.
        modalities: that it has.
        steps: of a round.
    """

    name: str
    modalities: tuple[str, ...]
    steps: int


def work_of_a_round(protocol: str, settings: Settings) -> list[Work]:
    """Returns the steps of every participant in a round of one epoch each.

    Args:
        protocol: of :func:`fedmepd.data.distribution.protocol_plan`.
        settings: of the runs; their shares decide how many cases train, as in `fedmepd data split`.
    """
    return [
        Work(site.name, site.modalities, math.ceil(part_sizes(site.cases, settings.data)[0] / settings.training.batch))
        for site in protocol_plan(BRATS, protocol)
    ]


def hours(work: Sequence[Work], step_seconds: dict[tuple[str, ...], float], rounds: int) -> float:
    """Returns the hours of a run's training.

    Args:
        work: of a round.
        step_seconds: seconds of a step by modalities.
        rounds: of the run.
    """
    return rounds * sum(each.steps * step_seconds[each.modalities] for each in work) / 3600


def measure_steps(
    subsets: Sequence[tuple[str, ...]], settings: Settings, device: str, repeats: int
) -> dict[tuple[str, ...], float]:
    """Returns the median seconds of a step, by modalities.

    Args:
        subsets: the modalities of the sites; equal ones are measured once.
        settings: of the runs: width, crop, batch and precision are used.
        device: to train on.
        repeats: steps that are measured, after one that is not.
    """
    training, found = settings.training, {}
    for modalities in dict.fromkeys(subsets):
        task = Task(
            modalities, settings.network.width, training.crop, training.batch, training.precision, device=device
        )
        product, [batch] = task.product(), task.batches(1)

        def step(product=product, batch=batch) -> None:
            product.step(batch)
            synchronise(device)

        step()
        found[modalities] = median(seconds(step) for _ in range(repeats))
    return found


def report(protocol: str, plan: Plan, settings: Settings, step_seconds: dict[tuple[str, ...], float]) -> str:
    """Returns the tables as text."""
    work = work_of_a_round(protocol, settings)
    rows = [
        [each.name, " ".join(each.modalities), str(each.steps), f"{step_seconds[each.modalities]:.3f}"] for each in work
    ]
    each = hours(work, step_seconds, settings.rounds)
    runs = sum(1 for _ in plan.choices()) * len(plan.seeds)
    said = (
        f"one run of {settings.rounds} rounds: {each:.1f} hours of training\n"
        f"the {runs} runs of the plan, one after the other: {each * runs:.0f} hours ({each * runs / 24:.1f} days)"
    )
    return f"{table(['site', 'modalities', 'steps a round', 'seconds a step'], rows)}\n\n{said}"


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and prints the hours."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_hours", description=__doc__.partition("\n")[0])
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    parser.add_argument("--threads", type=positive, default=None, help="CPU threads; default: the plan's")
    parser.add_argument("--repeats", type=positive, default=5, help="steps of each subset; default: 5")
    parser.add_argument("--quick", action="store_true", help="tiny network, to try the command; no figures to quote")
    options = parser.parse_args(arguments)
    plan = read_plan(PLANS / f"{options.protocol}.yaml", None)
    small = {"network": {"width": 4}, "training": {"crop": 24}} if options.quick else {}
    settings = make_settings(plan.preset, plan.settings | small)
    use_threads(options.threads or plan.threads)
    subsets = [each.modalities for each in work_of_a_round(options.protocol, settings)]
    found = measure_steps(subsets, settings, options.device, options.repeats)
    print(f"{describe(environment())}, {options.device}\n")
    print(report(options.protocol, plan, settings, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
