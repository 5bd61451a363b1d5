"""A run's curves as figures: scores, losses, personal filters, who took part, time and bytes."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmepd.evaluation.results import label
from fedmepd.federation.timing import PHASES
from fedmepd.reporting import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SERVER = {"color": "black", "linewidth": 2.2}


def scores(history: dict[str, Any]) -> Figure | None:
    """Validation Dice of every site and the fusion site, an axis for each region; None before the first validation."""
    validations = [entry for of in history.values() for entry in of["validation"]]
    if not validations:
        return None
    # A site whose labels do not tell a region has no curve there.
    regions = list(dict.fromkeys(region for entry in validations for region in entry["dice"]))
    figure, axes = plotting.axes(1, len(regions), height=3.2)
    for axis, region in zip(axes, regions, strict=True):
        for name, style in _styles(history).items():
            points = [
                (entry["round"], entry["dice"][region])
                for entry in history[name]["validation"]
                if region in entry["dice"]
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=label(name), **style)
        axis.set(title=region, xlabel="round", ylim=(0, 1))
    axes[0].set_ylabel("Dice on validation cases")
    plotting.legend(figure, axes[0])
    return figure


def losses(history: dict[str, Any]) -> Figure | None:
    """Mean training loss of every site and the fusion site, by round; None before the first round."""
    figure, [axis] = plotting.axes(1, 1, height=3.4)
    for name, style in _styles(history).items():
        points = [(entry["round"], entry["total"]) for entry in history[name]["rounds"] if "total" in entry]
        if points:
            axis.plot(*zip(*points, strict=True), label=label(name), **style)
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


def personal_filters(results: dict[str, Any], history: dict[str, Any]) -> Figure | None:
    """A heat map for each site: share of personal filters by convolution and round; None where there are none."""
    filters, names = results.get("filters") or {}, [site["name"] for site in results["sites"]]
    if not filters or not results["round"] or not names:
        return None
    columns = min(4, len(names))
    figure, axes = plotting.axes(-(-len(names) // columns), columns, height=3.4)
    image = None
    for axis, name in zip(axes, names, strict=False):
        image = axis.imshow(
            shares(history[name], filters, results["round"]),
            aspect="auto",
            vmin=0,
            vmax=1,
            cmap="cividis",
            interpolation="nearest",
            extent=(0.5, results["round"] + 0.5, len(filters), 0),
        )
        axis.set(title=name, xlabel="round")
        places, labels = _levels(list(filters))
        axis.set_yticks(places, labels)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=axes.tolist(), label="share of personal filters", fraction=0.03, pad=0.02)
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


def participation(results: dict[str, Any]) -> Figure | None:
    """Who took part in which round, missed it, or had its update scaled down; None before the first round."""
    sites, rounds = results["sites"], results["round"]
    if not sites or not rounds:
        return None
    figure, [axis] = plotting.axes(1, 1, height=0.9 + 0.28 * len(sites))
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
    axis.set_yticks(range(len(sites)), [site["name"] for site in sites])
    plotting.legend(figure, axis)
    return figure


def seconds(results: dict[str, Any]) -> Figure | None:
    """Where every round's time went, stacked; None before the first round."""
    rounds = [record for record in results["timing"]["rounds"] if record["round"] > 0]
    if not rounds:
        return None
    figure, [axis] = plotting.axes(1, 1, height=3.4)
    numbers, bottom = [record["round"] for record in rounds], np.zeros(len(rounds))
    for place, phase in enumerate(PHASES):
        values = np.array([record[phase] for record in rounds])
        if values.sum() >= 0.01 * sum(record["total"] for record in rounds):
            axis.bar(
                numbers,
                values,
                bottom=bottom,
                width=1.0,
                label=phase.replace("_", " "),
                color=plotting.COLOURS[place % len(plotting.COLOURS)],
                edgecolor="white",
                linewidth=0.3,
            )
            bottom += values
    axis.set(xlabel="round", ylabel="seconds")
    plotting.legend(figure, axis)
    return figure


def megabytes(history: dict[str, Any]) -> Figure | None:
    """What every site received and sent, by round; None where nothing was counted."""
    figure, axes = plotting.axes(1, 2, height=3.2)
    for axis, key, title in zip(axes, ("bytes_down", "bytes_up"), ("to the site", "from the site"), strict=True):
        for name, style in _styles(history).items():
            points = [(one["round"], one[key] / 1e6) for one in history[name]["rounds"] if one.get(key)]
            if points:
                axis.plot(*zip(*points, strict=True), label=label(name), **style)
        axis.set(title=title, xlabel="round", ylim=(0, None))
    axes[0].set_ylabel("MB")
    if not axes[0].lines and not axes[1].lines:
        return None
    plotting.legend(figure, axes[0] if axes[0].lines else axes[1])
    return figure


def cross_site(results: dict[str, Any]) -> Figure | None:
    """mDSC of every model at every site as a heat map; None where the job did not ask for it.

    A cell without a score has a letter, see :func:`obstacles`.
    """
    cells = results.get("cross_site")
    if not cells:
        return None
    letters = {place: letter for letter, places in obstacles(cells).values() for place in places}
    models, sites = list(cells), list(next(iter(cells.values())))
    scores = np.array([[_mdsc(cells[model][site]) for site in sites] for model in models])
    figure, [axis] = plotting.axes(1, 1, height=1.6 + 0.42 * len(models))
    image = axis.imshow(scores, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for row, model in enumerate(models):
        for column, site in enumerate(sites):
            score = scores[row, column]
            missing = np.isnan(score)
            text = letters.get((model, site), "") if missing else f"{score:.2f}"
            colour = "black" if missing or score > 0.55 else "white"
            weight = "bold" if model == site else "normal"
            axis.text(column, row, text, ha="center", va="center", color=colour, weight=weight, fontsize=9)
    axis.set_xticks(range(len(sites)), map(label, sites), rotation=30, ha="right")
    axis.set_yticks(range(len(models)), map(label, models))
    axis.set(xlabel="test cases of", ylabel="model of")
    figure.colorbar(image, ax=axis, label="mDSC", fraction=0.03, pad=0.02)
    return figure


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
