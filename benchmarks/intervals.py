"""How often the 95 % intervals of `fedmepd compare show` hold the true difference, and how long a comparison takes.

    python -m benchmarks.intervals

Differences between two methods are drawn whose true value is 0: effects of the seed, of seed and site, and of the
case. Eight sites with six test cases, as in the default job.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import command
from fedmepd.comparing.comparison import compare
from fedmepd.comparing.design import Design
from fedmepd.comparing.intervals import estimate
from fedmepd.comparing.resampling import resample
from tests.comparing import runs

SITES, CASES = 8, 6


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the difference's parts, in mDSC.

    Args:
        name: for the table.
        seed: of what a seed changes at all sites alike.
        site: of what it changes at one site.
        case: of single cases.
    """

    name: str
    seed: float
    site: float
    case: float


SPREADS = (
    Spread("cases differ most", 0.003, 0.02, 0.08),
    Spread("both", 0.012, 0.02, 0.08),
    Spread("seeds differ most", 0.012, 0.03, 0.03),
)


def differences(random: np.random.Generator, spread: Spread, seeds: int, kind: str) -> np.ndarray:
    """Returns differences of single cases, (seeds, sites, cases)."""
    of_seed = random.normal(0, spread.seed, (seeds, 1, 1)) + random.normal(0, spread.site, (seeds, SITES, 1))
    if kind == "independent":
        return of_seed + random.normal(0, spread.case, (seeds, SITES, CASES))
    # The same cases for every seed, of which each seed's network treats some better by chance.
    return (
        of_seed
        + random.normal(0, spread.case, (SITES, CASES))
        + random.normal(0, spread.case / 2, (seeds, SITES, CASES))
    )


def coverage(spread: Spread, seeds: int, kind: str, repetitions: int, draws: int) -> tuple[float, float]:
    """Returns the share of intervals that hold 0, and their mean width."""
    random = np.random.default_rng(0)
    design = Design(kind, seeds, cases=True, phantom=kind == "independent")
    held, widths = 0, []
    for repetition in range(repetitions):
        of_cases = differences(random, spread, seeds, kind)
        values = [[of_seed[site][None] for of_seed in of_cases] for site in range(SITES)]
        replicates = resample(
            values,
            lambda owners: owners.mean(axis=-1, keepdims=True),
            each_seed=design.resamples_each_seed,
            draws=draws,
            seed=repetition,
        )[:, 0]
        found = estimate(design, of_cases.mean(axis=(1, 2))[None], replicates)
        held += bool(found.low[0] <= 0 <= found.high[0])
        widths.append(found.high[0] - found.low[0])
    return held / repetitions, float(np.mean(widths))


def seconds(folder: Path, methods: int = 15, seeds: int = 5, sites: int = 8, cases: int = 20) -> float:
    """Returns the processor time of a comparison of made-up runs, in seconds."""
    random = np.random.default_rng(0)
    for method in range(methods):
        for seed in range(seeds):
            scores = random.uniform(0.3, 0.9, (sites + 1, cases, len(runs.REGIONS)))
            run = runs.run("fedmepd", seed, scores[:1], fusion=scores[-1]) | {"method": f"method-{method}"}
            named = [runs.entry(f"site-{place}", ("T2",), scores[place], f"{seed}") for place in range(sites)]
            runs.write(folder, run | {"sites": named})
    began = time.process_time()
    compare([folder], "method-0")
    return time.process_time() - began


@command
def main(arguments: Sequence[str] | None = None, time_of: Callable[[Path], float] = seconds) -> int:
    """Prints both.

    Args:
        arguments: of the command line.
        time_of: measures a comparison in a folder.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=1000, help="comparisons for each number")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap in each")
    options = parser.parse_args(arguments)
    print("| seeds | interval | " + " | ".join(spread.name for spread in SPREADS) + " |")
    print(f"|---|---|{'---|' * len(SPREADS)}")
    for kind in ("independent", "fixed"):
        for seeds in (1, 3, 4, 5, 10):
            if seeds == 1 and kind == "fixed":
                continue  # One seed is one seed.
            found = [coverage(spread, seeds, kind, options.repetitions, options.draws) for spread in SPREADS]
            cells = " | ".join(f"{held:.0%} (width {width:.3f})" for held, width in found)
            print(f"| {seeds}, {kind} | {Design(kind, seeds, True, True).interval} | {cells} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"\n15 methods, 5 seeds, 9 owners, 20 cases, 10,000 draws: {time_of(Path(folder)):.1f} s of processor time"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
