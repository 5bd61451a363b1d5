"""The test of every model at every site as a figure, and why cells of it are empty."""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmepd.evaluation.entries import label
from fedmepd.reporting import plotting
from fedmepd.reporting.plotting import WIDE, Layout, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cross_site(results: dict[str, Any], layout: Layout = WIDE) -> Figure | None:
    """mDSC of every model at every site as a heat map; None where the job did not ask for it.

    The colours reach from the lowest score to the highest. A cell without a score has a letter, see :func:`obstacles`;
    with many models, which leave no room for letters and numbers, it is white.
    """
    cells = results.get("cross_site")
    if not cells:
        return None
    letters = {place: letter for letter, places in obstacles(cells).values() for place in places}
    models, sites = list(cells), list(next(iter(cells.values())))
    many = len(models) > plotting.MANY
    if many:
        models, sites = _as_in_the_table(results, models), _as_in_the_table(results, sites)
    scores = np.array([[_mdsc(cells[model][site]) for site in sites] for model in models])
    figure, [axis] = plotting.axes(1, 1, height=min(1.6 + 0.42 * len(models), 11.0), layout=layout)
    low, high = _range(scores)
    # Counted from 1 where rows and columns have numbers in place of names.
    first = 1 if many else 0
    extent = (first - 0.5, first + len(sites) - 0.5, first + len(models) - 0.5, first - 0.5)
    image = axis.imshow(scores, vmin=low, vmax=high, cmap="cividis", aspect="auto", extent=extent)
    figure.colorbar(image, ax=axis, label="mDSC", fraction=0.03, pad=0.02)
    axis.set(xlabel="test cases of", ylabel="model of")
    if many:
        axis.set(
            xlabel="test cases of the sites, in the order of the table", ylabel="models, in the order of the table"
        )
        return figure
    size = plotting.cell_text(layout, len(sites))
    for row, model in enumerate(models):
        for column, site in enumerate(sites):
            score = scores[row, column]
            missing = np.isnan(score)
            text = letters.get((model, site), "") if missing else f"{score:.2f}"
            colour = "black" if missing else plotting.shade(score, low, high)
            weight = "bold" if model == site else "normal"
            axis.text(column, row, text, ha="center", va="center", color=colour, weight=weight, fontsize=size)
    plotting.name_columns(axis, [shortened(label(site)) for site in sites], layout)
    axis.set_yticks(range(len(models)), [shortened(label(model)) for model in models])
    return figure


def _as_in_the_table(results: dict[str, Any], names: list[str]) -> list[str]:
    places = {entry["name"]: place for place, entry in enumerate(results["sites"])}
    # The fusion site is below the sites.
    return sorted(names, key=lambda name: places.get(name, len(places)))


def _range(scores: np.ndarray) -> tuple[float, float]:
    """From the lowest score to the highest; 0 to 1 where there is none."""
    known = scores[~np.isnan(scores)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def obstacles(cells: dict[str, dict[str, dict[str, Any]]]) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Why cells have no score: for each reason a letter and the cells, as pairs of model and site."""
    found: dict[str, list[tuple[str, str]]] = {}
    for model, row in cells.items():
        for site, cell in row.items():
            if cell["test"] is None:
                found.setdefault(cell["reason"], []).append((model, site))
    # a to z, then aa, ab, ...
    letters = (first + second for first in ("", *ascii_lowercase) for second in ascii_lowercase)
    return {reason: (letter, places) for (reason, places), letter in zip(found.items(), letters, strict=False)}


def _mdsc(cell: dict[str, Any]) -> float:
    return float("nan") if cell["test"] is None else cell["test"]["mdsc"]
