"""The figures of docs/results.md as SVG, drawn from a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmepd.comparing.gathering import RunsMissing
from fedmepd.comparing.scores import FUSION, MEAN, WORST
from fedmepd.evaluation.entries import label
from fedmepd.reporting import comparison_figures, plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What each figure shows, for those who cannot see it.
FIGURES = {
    "heat_map": "mDSC of every method at every site",
    "differences": "mDSC of the reference minus that of each other method, with 95 % intervals",
    "curves": "validation mDSC of the sites against training steps and against MB",
    "cases": "mDSC of every method over the number of training cases at the fusion site, with 95 % intervals",
}


def draw(name: str, comparison: dict[str, Any]) -> bytes:
    """Returns a figure as SVG.

    Args:
        name: one of :data:`FIGURES`.
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.

    Raises:
        RunsMissing: the runs do not have what it shows.
    """
    drawing = cases if name == "cases" else getattr(comparison_figures, name)
    figure = drawing(comparison)
    if figure is None:
        raise RunsMissing(f"comparison: figure {name}: these runs have nothing to draw")
    return plotting.svg(figure)


def cases(comparison: dict[str, Any]) -> Figure | None:
    """Scores of methods whose names end in a number, as those of a plan's variations do, over that number."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name in comparison["methods"]:
        method, _, number = name.rpartition("-")
        if method and number.isdigit():
            found.setdefault(method, {})[int(number)] = comparison["scores"][name]
    if not found:
        return None
    columns = [
        column
        for column in (MEAN, WORST, FUSION)
        if all(column in of for each in found.values() for of in each.values())
    ]
    figure, axes = plotting.axes(1, len(columns), height=3.6)
    for axis, column in zip(axes, columns, strict=True):
        for place, (method, scores) in enumerate(found.items()):
            numbers = sorted(scores)
            means = [scores[number][column]["mean"] for number in numbers]
            low, high = ([scores[number][column][end] for number in numbers] for end in ("low", "high"))
            style = plotting.line(place)
            axis.plot(numbers, means, marker="o", markersize=4, label=method, **style)
            if None not in (*low, *high):
                axis.fill_between(numbers, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axis.set(title=label(column), xlabel="training cases at the fusion site", xscale="log")
        ticks = sorted({number for scores in found.values() for number in scores})
        axis.set_xticks(ticks, map(str, ticks))
        axis.set_xticks([], minor=True)
    axes[0].set_ylabel("mDSC on test cases")
    plotting.legend(figure, axes[0])
    return figure
