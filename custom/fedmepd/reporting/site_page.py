"""A site's own page about its part of a run: scores, curves, and pictures of its cases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmepd.evaluation import site_results
from fedmepd.evaluation.lesion_table import TITLE, site_table
from fedmepd.reporting import figures, headline, html, plotting, settings_table
from fedmepd.reporting.plotting import Layout, Picture
from fedmepd.storage import write_atomically, write_text
from fedmepd.tasks.find import task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = {
    "scores": ("Validation scores", "Dice on the site's validation cases by round, for each region."),
    "losses": ("Training losses", "Mean training loss of the site by round."),
    "personal_filters": (
        "Personal filters",
        "Share of each decoder convolution's filters that are personal here, by round, from the deepest level at the "
        "top to the classifier at the bottom.",
    ),
}


def write_site_report(source: Path, folder: Path) -> Path:
    """Writes the page of a site, and its figures as PNG; the run need not be finished.

    Args:
        source: the site's ``site.json``, with its pictures beside it.
        folder: to write to.

    Returns:
        the page.

    Raises:
        FedMEPDError: the file is damaged, or the folder cannot be written.
    """
    run = site_results.read(source)
    drawn = {name: plotting.picture(draw) for name, draw in _drawings(run).items()}
    curves = {name: picture for name, picture in drawn.items() if picture is not None}
    for name, picture in curves.items():
        path = folder / "figures" / f"{name}.png"
        write_atomically(path, lambda file, content=picture.wide: file.write(content))
    overlays = {
        kind: file.read_bytes()
        for kind in run["examples"]
        if (file := source.parent / "overlays" / f"{kind}.png").is_file()
    }
    page = folder / "report.html"
    write_text(page, _page(run, curves, overlays))
    return page


def _drawings(run: dict[str, Any]) -> dict[str, Callable[[Layout], Figure | None]]:
    history, names = {run["name"]: run["history"]}, {run["name"]: f"{run['name']}: {' '.join(run['modalities'])}"}
    drawings = {
        "scores": partial(figures.scores, history, names, task_of(run["settings"])),
        "losses": partial(figures.losses, history, names),
        "personal_filters": partial(figures.personal_filters, {**run, "sites": [run]}, history),
    }
    return {name: lambda layout, draw=draw: draw(layout=layout) for name, draw in drawings.items()}


def _page(run: dict[str, Any], curves: dict[str, Picture], overlays: dict[str, bytes]) -> str:
    body = [f'<p class="facts">{html.escape(headline.facts_of_site(run))}</p>']
    if run["status"] != "finished":
        body.append('<p class="running">This run is not finished, and nothing is tested yet.</p>')
    body += ["<h2>Scores</h2>", _scores(run)]
    for name, (heading, text) in _CURVES.items():
        if name in curves:
            body += [f"<h2>{heading}</h2>", html.figure(curves[name], text)]
    if overlays:
        body += [
            "<h2>Test cases</h2>",
            "<p>Unless the cases are phantoms, these are images of patients. Keep this page at the site.</p>",
        ]
    for kind, content in overlays.items():
        text = f"{kind} test case: mDSC {run['examples'][kind]:.3f}. Solid: segmentation; dotted: label"
        body.append(html.photograph(content, text))
    return html.document(headline.sentence_of_site(run), [*body, *settings_table.section(run)])


def _scores(run: dict[str, Any]) -> str:
    task = task_of(run["settings"])
    regions = tuple(task.regions)
    rows = []
    if run["test"]:
        rows.append((f"test, model of round {run['selected_round']}", *_numbers(regions, run["test"])))
    if run["history"]["validation"]:
        best = max(run["history"]["validation"], key=lambda entry: entry["mdsc"])
        rows.append((f"best validation, round {best['round']}", *_numbers(regions, best)))
    header = ("cases", "mDSC", *(f"Dice {region}" for region in regions), *(f"HD95 {region} mm" for region in regions))
    scores = html.table(header, rows, 1, colours=task.colours)
    if not (run["test"] and run["test"].get("lesions")):
        return scores
    heads, cells = site_table(regions, run["test"])
    return scores + html.table(("cases", *heads), [("test", *cells)], 1, caption=TITLE)


def _numbers(regions: tuple[str, ...], scores: dict[str, Any]) -> tuple[str, ...]:
    distances = scores.get("hd95_mm") or {}
    return (
        f"{scores['mdsc']:.3f}",
        *(f"{scores['dice'][region]:.3f}" if region in scores["dice"] else "-" for region in regions),
        *(f"{distances[region]:.1f}" if region in distances else "-" for region in regions),
    )
