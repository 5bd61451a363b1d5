"""A run's curves as figures: scores, losses, personal filters, who took part, time and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmepd.evaluation.entries import label
from fedmepd.federation.timing import PHASES
from fedmepd.reporting import plotting
from fedmepd.reporting.plotting import WIDE, Layout, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedmepd.tasks.task import Task

_SERVER = {"color": "black", "linewidth": 2.2}
_PHASE_COLOURS = dict(zip(PHASES, plotting.MUTED, strict=True))


def names(results: dict[str, Any]) -> dict[str, str]:
    """Returns the entries of a legend: every site and the fusion site with their modalities.

    Args:
        results: of the run.
    """
    return {
        entry["name"]: f"{label(entry['name'])}: {' '.join(entry['modalities'])}"
        for entry in (results["server"], *results["sites"])
    }


def scores(history: dict[str, Any], names: Mapping[str, str], task: Task, layout: Layout = WIDE) -> Figure | None:
    """Validation Dice of every site and the fusion site, an axis for each region; None before the first validation.

    Args:
        history: of the run.
        names: entries of the legend, see :func:`names`.
        task: of the run, for its regions' names and colours.
        layout: of the figure.
    """
    validations = [entry for of in history.values() for entry in of["validation"]]
    if not validations:
        return None
    # A site whose labels do not tell a region has no curve there.
    regions = list(dict.fromkeys(region for entry in validations for region in entry["dice"]))
    figure, axes = plotting.axes(1, len(regions), height=3.2, layout=layout)
    for axis, region in zip(axes, regions, strict=True):
        for name, style in _styles(history).items():
            points = [
                (entry["round"], entry["dice"][region])
                for entry in history[name]["validation"]
                if region in entry["dice"]
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=names.get(name, name), **style)
        title = f"{region} ({task.region_titles[region]})" if region in task.region_titles else region
        axis.set(title=title, xlabel="round", ylim=(0, 1))
        axis.spines["top"].set(visible=True, color=task.colours.get(region, "black"), linewidth=4)
    axes[0].set_ylabel("Dice on validation cases")
    plotting.legend(figure, max(axes, key=lambda axis: len(axis.lines)))
    return figure


def losses(history: dict[str, Any], names: Mapping[str, str], layout: Layout = WIDE) -> Figure | None:
    """Mean training loss of every site and the fusion site, by round; None before the first round."""
    figure, [axis] = plotting.axes(1, 1, height=3.4, layout=layout)
    for name, style in _styles(history).items():
        points = [(entry["round"], entry["total"]) for entry in history[name]["rounds"] if "total" in entry]
        if points:
            axis.plot(*zip(*points, strict=True), label=names.get(name, name), **style)
    axis.set(xlabel="round", ylabel="mean training loss")
    if not axis.lines:
        return None
    plotting.legend(figure, axis)
    return figure


def shares(history: dict[str, Any], filters: dict[str, int], rounds: int) -> np.ndarray:
    """Share of each convolution's filters that are personal.

    Args:
        history: one site's.
        filters: number of filters of each convolution of the decoder.
        rounds: the last round.

    Returns:
        (convolutions, rounds), for rounds 1 to the last, in the order of ``filters``.
    """
    found = np.zeros((len(filters), rounds))
    for row, (layer, total) in enumerate(filters.items()):
        for number, count in history["personal"].get(layer, []):
            found[row, number - 1 :] = count / total
    return found


def personal_filters(results: dict[str, Any], history: dict[str, Any], layout: Layout = WIDE) -> Figure | None:
    """A heat map for each site: share of personal filters by convolution and round; None before one is personal.

    The colours reach from 0 to the largest share of any site.
    """
    filters, sites = results.get("filters") or {}, results["sites"]
    if not filters or not results["round"] or not sites:
        return None
    # A site that has joined since the curves were written has none.
    maps = [shares(history.get(site["name"], {"personal": {}}), filters, results["round"]) for site in sites]
    most = max(map(np.max, maps))
    if not most:
        return None
    columns = min(4, len(sites))
    rows = -(-len(sites) // columns)
    figure, axes = plotting.axes(rows, columns, height=3.4, layout=layout, narrow=min(2, columns))
    image = None
    for axis, site, found in zip(axes, sites, maps, strict=False):
        image = axis.imshow(
            found,
            aspect="auto",
            vmin=0,
            vmax=most,
            cmap="cividis",
            interpolation="nearest",
            extent=(0.5, results["round"] + 0.5, len(filters), 0),
        )
        axis.set_title(f"{shortened(site['name'])}\n{' '.join(site['modalities'])}", fontsize=9)
        axis.set_xlabel("round")
        places, labels = _levels(list(filters))
        axis.set_yticks(places, labels)
    for axis in axes[len(sites) :]:
        axis.set_visible(False)
    # The scale is below, where it takes none of a narrow screen's width.
    figure.colorbar(image, ax=axes.tolist(), label="share of personal filters", location="bottom", aspect=40)
    return figure


def _levels(layers: list[str]) -> tuple[list[float], list[str]]:
    """Where each level's convolutions begin, by name: 62 names would not be readable."""
    places, labels = [], []
    for place, layer in enumerate(layers):
        name = f"level {layer.split('.')[1]}" if layer.startswith("levels.") else layer
        if name not in labels:
            places.append(place + 0.5)
            labels.append(name)
    return places, labels


def participation(results: dict[str, Any], layout: Layout = WIDE) -> Figure | None:
    """Who took part in which round, missed it, or had its update scaled down.

    None before the first round, and where every site took part in every round: a sentence says that.
    """
    sites, rounds = results["sites"], results["round"]
    irregular = any(site["rounds_missed"] or site["limited"] or site["joined"] > 1 for site in sites)
    if not rounds or not irregular:
        return None
    figure, [axis] = plotting.axes(1, 1, height=0.9 + 0.28 * len(sites), layout=layout)
    kinds: dict[str, tuple[Callable[[dict], list[int]], dict[str, Any]]] = {
        "took part": (lambda site: site["rounds_taken"], {"marker": "s", "color": "#0072b2", "s": 22}),
        "missed": (
            lambda site: [one["round"] for one in site["rounds_missed"]],
            {"marker": "x", "color": "#d55e00", "s": 26},
        ),
        "scaled down": (
            lambda site: [one["round"] for one in site["limited"]],
            {"marker": "o", "facecolors": "none", "edgecolors": "black", "s": 60},
        ),
    }
    for kind, (numbers, style) in kinds.items():
        points = [(number, place) for place, site in enumerate(sites) for number in numbers(site)]
        if points:
            axis.scatter(*zip(*points, strict=True), label=kind, **style)
    axis.set(xlabel="round", xlim=(0.5, rounds + 0.5), ylim=(len(sites) - 0.5, -0.5))
    axis.set_yticks(range(len(sites)), [shortened(site["name"]) for site in sites])
    plotting.legend(figure, axis)
    return figure


def seconds(results: dict[str, Any], layout: Layout = WIDE) -> Figure | None:
    """Where every round's time went, stacked; None before the first round."""
    rounds = [record for record in results["timing"]["rounds"] if record["round"] > 0]
    if not rounds:
        return None
    figure, [axis] = plotting.axes(1, 1, height=3.4, layout=layout)
    numbers, bottom = [record["round"] for record in rounds], np.zeros(len(rounds))
    for phase in PHASES:
        values = np.array([record.get(phase, 0.0) for record in rounds])
        if values.sum() >= 0.01 * sum(record["total"] for record in rounds):
            axis.bar(
                numbers,
                values,
                bottom=bottom,
                width=1.0,
                label=phase.replace("_", " "),
                color=_PHASE_COLOURS[phase],
                edgecolor="white",
                linewidth=0.3,
            )
            bottom += values
    axis.set(xlabel="round", ylabel="seconds")
    plotting.legend(figure, axis)
    return figure


def megabytes(history: dict[str, Any], names: Mapping[str, str], layout: Layout = WIDE) -> Figure | None:
    """What every site received and sent, by round; None where nothing was counted."""
    figure, axes = plotting.axes(1, 2, height=3.2, layout=layout)
    for axis, key, title in zip(axes, ("bytes_down", "bytes_up"), ("to the site", "from the site"), strict=True):
        for name, style in _styles(history).items():
            points = [(one["round"], one[key] / 1e6) for one in history[name]["rounds"] if one.get(key)]
            if points:
                axis.plot(*zip(*points, strict=True), label=names.get(name, name), **style)
        axis.set(title=title, xlabel="round", ylim=(0, None))
    axes[0].set_ylabel("MB")
    if not axes[0].lines and not axes[1].lines:
        return None
    plotting.legend(figure, axes[0] if axes[0].lines else axes[1])
    return figure


def cross_site(results: dict[str, Any], layout: Layout = WIDE) -> Figure | None:
    """mDSC of every model at every site as a heat map; None where the job did not ask for it.

    The colours reach from the lowest score to the highest. A cell without a score has a letter, see :func:`obstacles`.
    """
    cells = results.get("cross_site")
    if not cells:
        return None
    letters = {place: letter for letter, places in obstacles(cells).values() for place in places}
    models, sites = list(cells), list(next(iter(cells.values())))
    scores = np.array([[_mdsc(cells[model][site]) for site in sites] for model in models])
    figure, [axis] = plotting.axes(1, 1, height=1.6 + 0.42 * len(models), layout=layout)
    low, high = _range(scores)
    image = axis.imshow(scores, vmin=low, vmax=high, cmap="cividis", aspect="auto")
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
    axis.set(xlabel="test cases of", ylabel="model of")
    figure.colorbar(image, ax=axis, label="mDSC", fraction=0.03, pad=0.02)
    return figure


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


def _styles(history: dict[str, Any]) -> dict[str, dict[str, Any]]:
    sites = [name for name in history if name != "server"]
    styles = {name: plotting.line(place) for place, name in enumerate(sites)}
    return styles | ({"server": _SERVER} if "server" in history else {})
