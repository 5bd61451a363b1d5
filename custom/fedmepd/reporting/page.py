"""A run on one self-contained page: table, curves, who took part, time, bytes, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmepd.evaluation import lesion_table, tables
from fedmepd.evaluation.results import HISTORY, find, label, read
from fedmepd.reporting import figures, html, plotting
from fedmepd.storage import read_json, write_atomically, write_text

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
        "level at the top to the classifier at the bottom.",
    ),
    "seconds": ("Time of a round", "Seconds of every round, divided into phases."),
    "megabytes": ("On the wire", "Megabytes of tensors sent to and received from every site by round."),
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
    pictures = {name: plotting.png(figure) for name, figure in _draw(results, history).items() if figure is not None}
    for name, content in pictures.items():
        write_atomically(folder / "figures" / f"{name}.png", lambda file, content=content: file.write(content))
    write_text(folder / FILE_NAME, page(results, history, pictures))
    return folder / FILE_NAME


def _history(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    return read_json(path, "the history of a run", hint="; without that file the page is written without curves")


def _draw(results: dict[str, Any], history: dict[str, Any] | None) -> dict[str, Any]:
    drawn = {
        "participation": figures.participation(results),
        "seconds": figures.seconds(results),
        "cross_site": figures.cross_site(results),
    }
    if history is not None:
        drawn |= {
            "scores": figures.scores(history),
            "losses": figures.losses(history),
            "personal_filters": figures.personal_filters(results, history),
            "megabytes": figures.megabytes(history),
        }
    return drawn


def page(results: dict[str, Any], history: dict[str, Any] | None, pictures: dict[str, bytes]) -> str:
    """Returns the HTML.

    Args:
        results: of the run.
        history: its curves; None if there is no file of them.
        pictures: PNG files by name.
    """
    title = tables.title(results)
    body = []
    if results["status"] != "finished":
        body.append('<p class="running">This run is not finished: the scores are on validation cases.</p>')
    if history is None:
        body.append(f"<p>There are no curves, because there is no {HISTORY} beside the results.</p>")
    body += ["<h2>Scores</h2>", _table(tables.header(results), tables.rows(results), tables.TEXT_COLUMNS)]
    if lesion_table.has_lesions(results):
        body.append(f"<p>{lesion_table.TITLE}:</p>")
        body.append(_table(lesion_table.header(results), lesion_table.rows(results), 1))
    body.append(_notes(results))
    for name, (heading, text) in _PICTURES.items():
        if name in pictures:
            body += [f"<h2>{heading}</h2>", html.figure(pictures[name], text)]
            body += [_obstacles(results)] if name == "cross_site" else []
    body += html.settings(results)
    return html.document(title, body)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]], text_columns: int) -> str:
    return html.table(heads, rows, text_columns, [""] * (len(rows) - 2) + ["mean", "server"])


def _obstacles(results: dict[str, Any]) -> str:
    cells = results["cross_site"]
    said = [f"{letter}: {reason}" for reason, (letter, _) in figures.obstacles(cells).items()]
    counts = {entry["name"]: entry["cases"]["test"] for entry in (results["server"], *results["sites"])}
    said += [
        f"{label(model)} at {label(site)}: on {cell['cases']} of {counts[site]} cases, "
        "the others have no modality in common"
        for model, row in cells.items()
        for site, cell in row.items()
        if cell["test"] is not None and cell["cases"] < counts[site]
    ]
    return html.items(said) if said else ""


def _notes(results: dict[str, Any]) -> str:
    return html.items(tables.notes(results))
