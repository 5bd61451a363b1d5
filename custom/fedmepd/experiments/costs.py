"""What the runs of a plan have cost, by method, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from fedmepd.text_table import table

HEADS = (
    "method",
    "runs",
    "minutes",
    "steps at sites",
    "steps at fusion site",
    "MB up",
    "MB down",
    "peak MiB",
    "networks",
)


def cost_table(results: Iterable[dict[str, Any]]) -> list[str]:
    """Returns the lines of a table with a row for every method with its settings; each number is a median of its runs.

    Minutes are those of the whole run, steps and bytes are sums over the sites, and the fusion site where it is one of
    them. Peak MiB is the most memory of any process.

    Args:
        results: of finished runs.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        groups.setdefault(one["run_name"].removesuffix(f"-seed-{one['seed']}"), []).append(costs(one))
    rows = []
    for name, of in groups.items():
        middle = {key: median([one[key] for one in of]) for key in of[0]}
        rows.append(
            [
                name,
                str(len(of)),
                f"{middle['seconds'] / 60:.1f}",
                *(f"{middle[key]:.0f}" for key in ("site_steps", "fusion_steps")),
                *(f"{middle[key] / 1e6:.1f}" for key in ("bytes_up", "bytes_down")),
                f"{middle['peak_mib']:.0f}" if middle["peak_mib"] else "-",
                f"{middle['networks']:.0f}",
            ]
        )
    return table(HEADS, rows, left={0})


def costs(results: dict[str, Any]) -> dict[str, float]:
    """Returns what one run has cost."""
    sites = [site["work"] for site in results["sites"]]
    fusion = results["server"]["work"]
    return {
        "seconds": results["seconds"],
        "site_steps": sum(work["steps"] for work in sites),
        "fusion_steps": fusion["steps"],
        **{key: sum(work[key] for work in (*sites, fusion)) for key in ("bytes_up", "bytes_down")},
        "peak_mib": max(work["peak_mib"] or 0 for work in (*sites, fusion)),
        "networks": max((work["networks"] for work in sites), default=1),
    }
