"""A run on one self-contained page: what came out, table, curves, who took part, time, bytes, settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmepd.evaluation import lesion_table, tables
from fedmepd.evaluation.entries import label
from fedmepd.evaluation.result_files import History, require
from fedmepd.evaluation.results import HISTORY, find, read
from fedmepd.reporting import figures, headline, html, plotting, settings_table
from fedmepd.reporting.cross_site_figure import cross_site, obstacles
from fedmepd.reporting.plotting import Layout, Picture
from fedmepd.storage import read_foreign_json, write_atomically, write_text
from fedmepd.tasks.find import task_of
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE_NAME = "report.html"

# File name, heading, what the picture shows (for those who cannot see it).
_PICTURES = {
    "scores": (
        "Validation scores",
        "Dice on validation cases by round, for each region. One line per site; the fusion site is black.",
    ),
    "losses": ("Training losses", "Mean training loss by round. One line per site; the fusion site is black."),
    "cross_site": (
        "Every model on every site's test cases",
        "mDSC of each model (row) on each site's test cases (column), with the modalities that both have. Bold: each "
        "model at its own site.",
    ),
    "participation": (
        "Who took part",
        "One row per site, one column per round: took part, missed, or update scaled down.",
    ),
    "personal_filters": (
        "Personal filters",
        "For each site, the share of each decoder convolution's filters that are personal, by round, from the deepest "
        "level at the top to the classifier at the bottom. The colours reach to the largest share of any site.",
    ),
    "seconds": ("Time of a round", "Seconds of every round, divided into phases."),
    "megabytes": ("On the wire", "Megabytes of tensors sent to and received from every site by round."),
}
# The same of more sites than names and panels have room for.
_OF_MANY = {
    "cross_site": "mDSC of each model (row) on each site's test cases (column), with the modalities that both have. "
    "White: no score.",
    "personal_filters": "One row per site, one column per round: the share of the decoder's filters that are personal.",
}


def write_report(workspace: Path, out: Path | None = None) -> Path:
    """Writes a run's page and its figures as PNG; the run need not be finished.

    Args:
        workspace: as for :func:`fedmepd.evaluation.results.find`.
        out: the folder to write to; None: ``report`` beside the results.

    Returns:
        the page.

    Raises:
        FedMEPDError: there are no results, they are damaged, or the folder cannot be written.
    """
    source = find(workspace)
    results = read(source)
    history = _history(source.with_name(HISTORY))
    folder = source.parent / "report" if out is None else out
    drawn = {name: plotting.picture(draw) for name, draw in _drawings(results, history).items()}
    pictures = {name: picture for name, picture in drawn.items() if picture is not None}
    for name, picture in pictures.items():
        path = folder / "figures" / f"{name}.png"
        write_atomically(path, lambda file, content=picture.wide: file.write(content))
    write_text(folder / FILE_NAME, page(results, history, pictures))
    return folder / FILE_NAME


def _history(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    hint = "; without that file the page is written without curves"
    history = read_foreign_json(path, "the history of a run", hint=hint)
    require(History, history, path, HISTORY)
    return history


def _drawings(results: dict[str, Any], history: dict[str, Any] | None) -> dict[str, Callable[[Layout], Figure | None]]:
    drawings = {
        "participation": partial(figures.participation, results),
        "seconds": partial(figures.seconds, results),
        "cross_site": partial(cross_site, results),
    }
    if history is not None:
        names, task = figures.names(results), task_of(results["settings"])
        drawings |= {
            "scores": partial(figures.scores, history, names, task),
            "losses": partial(figures.losses, history, names),
            "personal_filters": partial(figures.personal_filters, results, history),
            "megabytes": partial(figures.megabytes, history, names),
        }
    return {name: lambda layout, draw=draw: draw(layout=layout) for name, draw in drawings.items()}


def page(results: dict[str, Any], history: dict[str, Any] | None, pictures: dict[str, Picture]) -> str:
    """Returns the HTML.

    Args:
        results: of the run.
        history: its curves; None if there is no file of them.
        pictures: by name.
    """
    body = [f'<p class="facts">{html.escape(headline.facts(results))}</p>']
    if results["status"] != "finished":
        body.append('<p class="running">This run is not finished: the scores are on validation cases.</p>')
    if results.get("source") == "phantom":
        body.append(f'<p class="running">{headline.PHANTOMS}</p>')
    body += [html.headline(headline.numbers(results)), "<h2>Scores</h2>", *_tables(results), _notes(results)]
    if lesion_table.has_lesions(results):
        body += ["<h2>Lesion by lesion</h2>", _lesions(results)]
    if history is None:
        body.append(f"<p>There are no curves, because there is no {HISTORY} beside the results.</p>")
    many = len(results["sites"]) > plotting.MANY
    for name, (heading, text) in _PICTURES.items():
        if name in pictures:
            shown = _OF_MANY.get(name, text) if many else text
            body += [f"<h2>{heading}</h2>", html.figure(pictures[name], shown)]
            body += [_obstacles(results)] if name == "cross_site" else []
    body += settings_table.section(results)
    return html.document(headline.sentence(results), body)


def _tables(results: dict[str, Any]) -> list[str]:
    """The table of the command line, the scores first, in two that each fit on a telephone."""
    heads, rows = tables.header(results), tables.rows(results)
    modalities = [row[tables.MODALITIES] for row in rows]
    parts: dict[str, list[tuple[str, int]]] = {"Dice: 1 is best": [], "HD95 in mm: 0 is best": []}
    overlap, distance = parts.values()
    for place, head in enumerate(heads[tables.TEXT_COLUMNS :], tables.TEXT_COLUMNS):
        kind, _, region = head.partition(" ")
        if head == tables.MDSC:
            overlap.insert(0, (head, place))
        elif region:
            (overlap if kind == tables.DICE else distance).append((region, place))
        else:
            distance.append((head, place))
    distance.append((heads[tables.CASES], tables.CASES))
    made = [
        html.table(
            (heads[tables.SITE], *(head for head, _ in columns)),
            [(row[tables.SITE], *(row[place] for _, place in columns)) for row in rows],
            1,
            [""] * (len(rows) - 2) + ["mean", "server"],
            caption=caption,
            colours=task_of(results["settings"]).colours,
            details=modalities,
        )
        for caption, columns in parts.items()
    ]
    return ['<div class="tables">', *made, "</div>"]


def _lesions(results: dict[str, Any]) -> str:
    rows = lesion_table.rows(results)
    marks = [""] * (len(rows) - 2) + ["mean", "server"]
    return html.table(lesion_table.header(results), rows, 1, marks, caption=lesion_table.TITLE)


def _obstacles(results: dict[str, Any]) -> str:
    cells = results["cross_site"]
    if len(cells) > plotting.MANY:
        reasons = obstacles(cells).items()
        return html.items([f"{counted(len(places), 'cell')}: {reason}" for reason, (_, places) in reasons])
    said = [f"{letter}: {reason}" for reason, (letter, _) in obstacles(cells).items()]
    counts = {entry["name"]: entry["cases"]["test"] for entry in (results["server"], *results["sites"])}
    said += [
        f"{label(model)} at {label(site)}: on {cell['cases']} of {counted(counts[site], 'case')}, "
        "the others have no modality in common"
        for model, row in cells.items()
        for site, cell in row.items()
        if cell["test"] is not None and cell["cases"] < counts[site]
    ]
    return html.items(said) if said else ""


def _notes(results: dict[str, Any]) -> str:
    return html.items(tables.notes(results))
