"""The figures of a comparison: every site with every method, paired differences, curves against what was spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedmepd.comparing.scores import FUSION, MEAN, WORST
from fedmepd.evaluation.entries import label
from fedmepd.reporting import plotting
from fedmepd.reporting.plotting import WIDE, Layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BUDGETS = {"steps": ("training steps of all participants", 1), "bytes": ("MB of all sites", 1e6)}


def heat_map(comparison: dict[str, Any], layout: Layout = WIDE) -> Figure:
    """mDSC of every method (row) at every site (column), mean over seeds."""
    methods = comparison["methods"]
    columns = list(comparison["scores"][methods[0]])
    owners = [MEAN, WORST, *(column for column in columns if column not in (MEAN, WORST))]
    scores = np.array([[comparison["scores"][name][owner]["mean"] for owner in owners] for name in methods])
    figure, [axis] = plotting.axes(1, 1, height=1.6 + 0.4 * len(methods), layout=layout)
    low, high = scores.min(), scores.max()
    image = axis.imshow(scores, vmin=low, vmax=high, cmap="cividis", aspect="auto")
    for row, column in np.ndindex(scores.shape):
        colour, size = plotting.shade(scores[row, column], low, high), plotting.cell_text(layout, len(owners))
        axis.text(column, row, f"{scores[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=size)
    plotting.name_columns(axis, [plotting.shortened(label(owner)) for owner in owners], layout)
    axis.set_yticks(range(len(methods)), methods)
    # The summaries stand apart from the sites.
    axis.axvline(1.5, color="white", linewidth=3)
    figure.colorbar(image, ax=axis, label="mDSC", fraction=0.03, pad=0.02)
    return figure


def differences(comparison: dict[str, Any], layout: Layout = WIDE) -> Figure | None:
    """Reference minus each rival with its 95 % interval, at the sites and at the fusion site; None without rivals."""
    rivals = list(comparison["differences"])
    if not rivals:
        return None
    found = [comparison["differences"][name]["columns"] for name in rivals]
    columns = [column for column in (MEAN, WORST, FUSION) if column in found[0]]
    figure, axes = plotting.axes(1, len(columns), height=1.4 + 0.34 * len(rivals), layout=layout)
    ends = [of[column][key] for of in found for column in columns for key in ("mean", "low", "high")]
    ends = [0.0, *(end for end in ends if end is not None)]
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    for axis, column in zip(axes, columns, strict=True):
        for row, of_rival in enumerate(found):
            of_column = of_rival[column]
            # One colour for every rival: that an interval holds 0 is to be seen, not to be judged by colour.
            style = {"color": plotting.COLOURS[0], "marker": "o", "markersize": 5, "capsize": 3, "linewidth": 1.4}
            error = None
            if of_column["low"] is not None:
                error = [[of_column["mean"] - of_column["low"]], [of_column["high"] - of_column["mean"]]]
            axis.errorbar([of_column["mean"]], [row], xerr=np.maximum(error, 0) if error else None, **style)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(title=label(column), ylim=(len(rivals) - 0.5, -0.5), xlabel="difference of mDSC")
        # One scale for all, so that lengths can be compared.
        axis.set_xlim(min(ends) - margin, max(ends) + margin)
        axis.xaxis.set_major_locator(_few_ticks())
        named = axis is axes[0] or layout.narrow
        axis.set_yticks(range(len(rivals)), rivals if named else [""] * len(rivals))
    return figure


def curves(comparison: dict[str, Any], layout: Layout = WIDE) -> Figure | None:
    """Validation mDSC of the sites against steps and bytes, with a band of one standard deviation; None without."""
    found = {name: curve for name, curve in comparison["curves"].items() if curve is not None}
    if not found:
        return None
    figure, axes = plotting.axes(1, len(_BUDGETS), height=3.8, layout=layout)
    for axis, (budget, (text, unit)) in zip(axes, _BUDGETS.items(), strict=True):
        for place, name in enumerate(comparison["methods"]):
            if name not in found or not any(found[name]["spent"][budget]):
                continue
            spent, mean = np.array(found[name]["spent"][budget]) / unit, np.array(found[name]["mean"])
            style = plotting.line(place)
            axis.plot(spent, mean, label=name, marker=".", **style)
            if None not in found[name]["sd"]:
                sd = np.array(found[name]["sd"])
                axis.fill_between(spent, mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)
        axis.set(xlabel=text, ylim=(0, None), xlim=(0, None))
        axis.xaxis.set_major_locator(_few_ticks())
    axes[0].set_ylabel("validation mDSC, mean of the sites")
    plotting.legend(figure, axes[0])
    return figure


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)
