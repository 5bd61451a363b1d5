"""Tables of docs/results.md that `fedmepd compare show` does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedmepd.comparing.sections import Section

# A mean validation score that changes by less stands still.
STILL = 0.01


def took(comparison: dict[str, Any]) -> Section:
    """Returns a table of how long each run took on one core.

    Args:
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
    """
    used = [run for run in comparison["runs"] if run["unused"] is None]
    rows = []
    for name in comparison["methods"]:
        runs = [run for run in used if run["method"] == name]
        minutes = ", ".join(f"{run['seconds'] / 60:.0f}" for run in runs)
        rows.append((name, ", ".join({str(run["rounds"]): 0 for run in runs}), minutes, _hours(runs)))
    rows.append(("all", "", "", _hours(used)))
    return Section("What each run took", ("method", "rounds", "minutes of each run", "hours"), rows, 3)


def _hours(runs: Sequence[dict[str, Any]]) -> str:
    return f"{sum(run['seconds'] for run in runs) / 3600:.1f}"


def convergence(comparison: dict[str, Any]) -> Section:
    """Returns a table of how validation went on: whether the last quarter of the rounds was better than the third.

    Args:
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
    """
    rows = []
    for name in comparison["methods"]:
        curve = comparison["curves"][name]
        if curve is None:
            continue
        rounds, mean = np.array(curve["rounds"]), np.array(curve["mean"])
        quarter = np.ceil(4 * rounds / rounds[-1])
        third, last = mean[quarter == 3], mean[quarter == 4]
        near = rounds[mean > mean.max() - STILL][0]
        gain = f"{last.mean() - third.mean():+.3f}" if len(third) else "-"
        rows.append((name, str(rounds[-1]), f"{mean[-1]:.3f}", f"{mean.max():.3f}", str(near), gain))
    heads = ("method", "rounds", "at the end", "best", f"first within {STILL}", "last quarter - third")
    note = (
        "Validation mDSC, mean over sites and seeds: at the end, the best, the first round within "
        f"{STILL} of the best, and by how much the mean of the last quarter of the rounds is above that of the third. "
        f"Below {STILL}, a method stands still."
    )
    return Section("Convergence of validation", heads, rows, 1, [note] if rows else [])
