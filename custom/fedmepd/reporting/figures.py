"""A run's curves as figures: scores, losses, personal filters, who took part, time and bytes.

Where there are more than :data:`~fedmepd.reporting.plotting.MANY` sites, nobody can tell their names and colours apart:
then all have one colour, or a row each in one map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmepd.evaluation.entries import label
from fedmepd.federation.timing import PHASES
from fedmepd.reporting import plotting
from fedmepd.reporting.plotting import WIDE, Layout, shortened
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedmepd.tasks.task import Task

_SERVER = {"color": "black", "linewidth": 2.2}
_ONE_OF_MANY = {"color": "#0072b2", "linewidth": 0.5, "alpha": 0.5}
# The tallest map of many sites, in inches.
_TALLEST = 8.0
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
        _lines(
            axis,
            history,
            names,
            lambda of, region=region: [
                (entry["round"], entry["dice"][region]) for entry in of["validation"] if region in entry["dice"]
            ],
            marker=".",
        )
        title = f"{region} ({task.region_titles[region]})" if region in task.region_titles else region
        axis.set(title=title, xlabel="round", ylim=(0, 1))
        axis.spines["top"].set(visible=True, color=task.colours.get(region, "black"), linewidth=4)
    axes[0].set_ylabel("Dice on validation cases")
    plotting.legend(figure, max(axes, key=lambda axis: len(axis.lines)))
    return figure


def _lines(
    axis: Any,
    history: dict[str, Any],
    names: Mapping[str, str],
    points_of: Callable[[dict[str, Any]], list[tuple[float, float]]],
    **more: Any,
) -> None:
    """Draws a line for each participant that has points; those of many sites look alike and have one entry together."""
    sites = [name for name in history if name != "server"]
    many = len(sites) > plotting.MANY
    named = False
    for place, name in enumerate(sites):
        points = points_of(history[name])
        if points and many:
            label = "_" if named else counted(len(sites), "site")
            axis.plot(*zip(*points, strict=True), label=label, **_ONE_OF_MANY)
            named = True
        elif points:
            axis.plot(*zip(*points, strict=True), label=names.get(name, name), **plotting.line(place), **more)
    points = points_of(history["server"]) if "server" in history else []
    if points:
        axis.plot(*zip(*points, strict=True), label=names.get("server", "server"), **_SERVER, **more)


def losses(history: dict[str, Any], names: Mapping[str, str], layout: Layout = WIDE) -> Figure | None:
    """Mean training loss of every site and the fusion site, by round; None before the first round."""
    figure, [axis] = plotting.axes(1, 1, height=3.4, layout=layout)
    _lines(
        axis,
        history,
        names,
        lambda of: [(entry["round"], entry["total"]) for entry in of["rounds"] if entry.get("total") is not None],
    )
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

    The colours reach from 0 to the largest share of any site. Many sites have a row each in one map, for all
    convolutions together.
    """
    filters, sites = results.get("filters") or {}, results["sites"]
    if not filters or not results["round"] or not sites:
        return None
    # A site that has joined since the curves were written has none.
    maps = [shares(history.get(site["name"], {"personal": {}}), filters, results["round"]) for site in sites]
    most = max(map(np.max, maps))
    if not most:
        return None
    if len(sites) > plotting.MANY:
        weights = np.array(list(filters.values()), float)
        return _map_of_many(np.stack([weights @ found / weights.sum() for found in maps]), layout)
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


def _map_of_many(shares: np.ndarray, layout: Layout) -> Figure:
    """Shares of personal filters, (sites, rounds)."""
    sites, rounds = shares.shape
    figure, [axis] = plotting.axes(1, 1, height=min(_TALLEST, 1.5 + 0.1 * sites), layout=layout)
    extent = (0.5, rounds + 0.5, sites + 0.5, 0.5)
    image = axis.imshow(shares, aspect="auto", vmin=0, cmap="cividis", interpolation="nearest", extent=extent)
    axis.set(xlabel="round", ylabel="sites, in the order of the table")
    figure.colorbar(image, ax=axis, label="share of personal filters", location="bottom", aspect=40)
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
    many = len(sites) > plotting.MANY
    figure, [axis] = plotting.axes(1, 1, height=min(_TALLEST, 0.9 + 0.28 * len(sites)), layout=layout)
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
        points = [(number, place) for place, site in enumerate(sites, 1) for number in numbers(site)]
        if points:
            size = style["s"] / 4 if many else style["s"]
            axis.scatter(*zip(*points, strict=True), label=kind, **style | {"s": size})
    axis.set(xlabel="round", xlim=(0.5, rounds + 0.5), ylim=(len(sites) + 0.5, 0.5))
    if many:
        axis.set_ylabel("sites, in the order of the table")
    else:
        axis.set_yticks(range(1, len(sites) + 1), [shortened(site["name"]) for site in sites])
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
        _lines(
            axis,
            history,
            names,
            lambda of, key=key: [(one["round"], one[key] / 1e6) for one in of["rounds"] if one.get(key)],
        )
        axis.set(title=title, xlabel="round", ylim=(0, None))
    axes[0].set_ylabel("MB")
    if not axes[0].lines and not axes[1].lines:
        return None
    plotting.legend(figure, axes[0] if axes[0].lines else axes[1])
    return figure
