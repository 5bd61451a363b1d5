"""A run on one self-contained page: table, curves, who took part, time, bytes, settings."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import tables
from fedmepd.evaluation.results import HISTORY, find, read
from fedmepd.reporting import figures
from fedmepd.storage import write_atomically, write_text

FILE_NAME = "report.html"

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 72rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th.text, td.text { text-align: left; }
tr.mean td, tr.server td { font-weight: 600; }
figure { margin: 0; } img { max-width: 100%; height: auto; }
.wide { min-width: 44rem; }
.running { padding: 0.5rem 0.8rem; background: #fff3cd; border-left: 4px solid #b58100; }
pre { white-space: pre-wrap; font-size: 0.8rem; background: #f6f6f6; padding: 0.8rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  figure, table { break-inside: avoid; }
  .scroll { overflow: visible; } .wide { min-width: 0; } table { font-size: 7.5pt; } th, td { padding: 1pt 3pt; } }
"""

# File name, heading, what the picture shows (for those who cannot see it).
_PICTURES = {
    "scores": (
        "Validation scores",
        "Dice on validation cases by round, for each region; a line a site, black the server.",
    ),
    "losses": ("Training losses", "Mean training loss by round; a line a site, black the fusion site."),
    "cross_site": (
        "Every model on every site's test cases",
        "mDSC of each model (row) on each site's test cases (column), with the modalities that both have; bold: each "
        "model at its own site.",
    ),
    "participation": ("Who took part", "A row a site, a column a round: took part, missed, or update scaled down."),
    "personal_filters": (
        "Personal filters",
        "For each site, the share of each decoder convolution's filters that are personal, by round, from the deepest "
        "level at the top to the classifier at the bottom.",
    ),
    "seconds": ("Time of a round", "Seconds of every round by phase, stacked."),
    "megabytes": ("On the wire", "Megabytes of tensors to and from every site by round."),
}


def write_report(workspace: Path, out: Path | None = None) -> Path:
    """Writes a run's page and its figures as PNG; the run may still go on.

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
    pictures = {name: figures.png(figure) for name, figure in _draw(results, history).items() if figure is not None}
    for name, content in pictures.items():
        write_atomically(folder / "figures" / f"{name}.png", lambda file, content=content: file.write(content))
    write_text(folder / FILE_NAME, page(results, history, pictures))
    return folder / FILE_NAME


def _history(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FedMEPDError(
            f"{path} is damaged: {error}. Without that file the page is written without curves"
        ) from error


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
        history: its curves; None where an older version wrote none.
        pictures: PNG files by name.
    """
    title = tables.title(results)
    body = [f"<h1>{escape(title)}</h1>"]
    if results["status"] != "finished":
        body.append('<p class="running">This run is not finished: the scores are on validation cases.</p>')
    if history is None:
        body.append(
            f"<p>There is no {HISTORY} beside the results: an older version wrote them. Curves are missing.</p>"
        )
    body += ["<h2>Scores</h2>", _table(results), _notes(results)]
    for name, (heading, text) in _PICTURES.items():
        if name in pictures:
            body += [f"<h2>{heading}</h2>", _figure(pictures[name], text)]
            body += [_obstacles(results)] if name == "cross_site" else []
    body += [
        "<h2>Settings</h2>",
        f"<p>fedmepd {escape(results['version'])}, seed {results['seed']}</p>",
        f"<pre>{escape(json.dumps(results['settings'], indent=2))}</pre>",
        "<p>For research. Not a medical device.</p>",
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            *body,
            "</body></html>",
            "",
        ]
    )


def _table(results: dict[str, Any]) -> str:
    rows = tables.rows(results)
    head = _row("th", tables.HEADER)
    marks = [""] * (len(rows) - 2) + ["mean", "server"]
    body = "\n".join(_row("td", row, mark) for row, mark in zip(rows, marks, strict=True))
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


def _row(tag: str, cells: tuple[str, ...], mark: str = "") -> str:
    scope = ' scope="col"' if tag == "th" else ""
    made = [
        f"<{tag}{scope}" + (' class="text"' if place < tables.TEXT_COLUMNS else "") + f">{escape(cell)}</{tag}>"
        for place, cell in enumerate(cells)
    ]
    return f"<tr{f' class={mark!r}' if mark else ''}>{''.join(made)}</tr>"


def _obstacles(results: dict[str, Any]) -> str:
    cells = results["cross_site"]
    said = [f"{letter}: {reason}" for reason, (letter, _) in figures.obstacles(cells).items()]
    counts = {entry["name"]: entry["cases"]["test"] for entry in (results["server"], *results["sites"])}
    said += [
        f"{model} at {site}: on {cell['cases']} of {counts[site]} cases, the others have no modality in common"
        for model, row in cells.items()
        for site, cell in row.items()
        if cell["test"] is not None and cell["cases"] < counts[site]
    ]
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in said) + "</ul>" if said else ""


def _notes(results: dict[str, Any]) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in tables.notes(results)) + "</ul>"


def _figure(content: bytes, text: str) -> str:
    data = base64.b64encode(content).decode()
    return (
        f'<figure><div class="scroll"><img class="wide" alt="{escape(text)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )
