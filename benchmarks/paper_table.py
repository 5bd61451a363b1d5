"""The paper's table with the published figures beside one's own: ``python -m benchmarks.paper_table brats2018 OUT``.

OUT is what `fedmepd compare run benchmarks/plans/brats2018.yaml OUT` has written. Only finished runs are used. mDSC and
Dice in %, HD95 in voxels of 1 mm; mean over seeds, and ± the standard deviation where there are several.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.measure import command
from benchmarks.published import PUBLISHED, Published
from fedmepd.comparing.comparison import compare
from fedmepd.comparing.scores import FUSION, MEAN

SITES = tuple(f"site-{number}" for number in range(1, 9))
HEADER = ("method", "figures", *SITES, "mean of the sites", "server", "HD95 sites", "HD95 server")


def paper_table(protocol: str, comparison: dict[str, Any]) -> list[str]:
    """Returns the lines of a Markdown table: for each method the published figures, then those of the runs.

    Args:
        protocol: a key of :data:`~benchmarks.published.PUBLISHED`.
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
    """
    published = PUBLISHED[protocol]
    rows = []
    for name in dict.fromkeys([*published, *comparison["methods"]]):
        if name in published:
            rows.append((published[name].title, "published", *_published(published[name])))
        if name in comparison["methods"]:
            rows.append((name, "yours", *_own(name, comparison)))
    rule = ("---", "---", *["---:"] * (len(HEADER) - 2))
    return [f"| {' | '.join(row)} |" for row in (HEADER, rule, *rows)]


def _published(of: Published) -> list[str]:
    sites = of.sites or (None,) * len(SITES)
    return [*map(_cell, (*sites, of.mean, of.server)), *(_cell(value, 1) for value in of.hd95)]


def _own(name: str, comparison: dict[str, Any]) -> list[str]:
    several = len(comparison["seeds"]) > 1
    cells = []
    for column in (*SITES, MEAN, FUSION):
        of = comparison["scores"][name].get(column)
        spread = f" ± {100 * of['sd']:.2f}" if of and several and of["sd"] is not None else ""
        cells.append(_cell(of and 100 * of["mean"]) + spread)
    for part in (MEAN, FUSION):
        regions = comparison["regions_scores"][name].get(part)
        cells.append(_cell(regions and fmean(region["hd95_mm"] for region in regions.values()), 1))
    return cells


def _cell(value: float | None, decimals: int = 2) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_table", description=__doc__.partition("\n")[0])
    parser.add_argument("protocol", choices=list(PUBLISHED))
    parser.add_argument("runs", type=Path, metavar="OUT", help="what `fedmepd compare run` has written")
    options = parser.parse_args(arguments)
    comparison = compare([options.runs])
    print("\n".join(paper_table(options.protocol, comparison)))
    print(f"\nSeeds {', '.join(map(str, comparison['seeds']))}.")
    for sentence in (*comparison["design"]["sentences"], *comparison["notes"]):
        print(f"- {sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
