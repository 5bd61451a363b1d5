"""A site's own page about its part of a run: scores, curves, and pictures of its cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmepd.evaluation import site_results
from fedmepd.evaluation.lesion_table import TITLE, site_table
from fedmepd.reporting import figures, html, plotting
from fedmepd.storage import write_atomically, write_text
from fedmepd.tasks.find import task_of

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
    curves = {name: plotting.png(figure) for name, figure in _draw(run).items() if figure is not None}
    for name, content in curves.items():
        write_atomically(folder / "figures" / f"{name}.png", lambda file, content=content: file.write(content))
    overlays = {
        kind: file.read_bytes()
        for kind in run["examples"]
        if (file := source.parent / "overlays" / f"{kind}.png").is_file()
    }
    page = folder / "report.html"
    write_text(page, _page(run, curves, overlays))
    return page


def _draw(run: dict[str, Any]) -> dict[str, Any]:
    history = {run["name"]: run["history"]}
    return {
        "scores": figures.scores(history),
        "losses": figures.losses(history),
        "personal_filters": figures.personal_filters({**run, "sites": [run]}, history),
    }


def _page(run: dict[str, Any], curves: dict[str, bytes], overlays: dict[str, bytes]) -> str:
    named = f" {run['run_name']}" if run["run_name"] else ""
    title = f"{run['name']}: {run['method']}{named}, round {run['round']} of {run['rounds']}, {run['status']}"
    cases = "/".join(str(run["cases"][part]) for part in ("train", "validation", "test"))
    body = [f"<p>{' '.join(run['modalities'])}; cases: {cases} for training, validation, test.</p>"]
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
        body.append(html.figure(content, text))
    return html.document(title, [*body, *html.settings(run)])


def _scores(run: dict[str, Any]) -> str:
    regions = tuple(task_of(run["settings"]).regions)
    rows = []
    if run["test"]:
        rows.append((f"test, model of round {run['selected_round']}", *_numbers(regions, run["test"])))
    if run["history"]["validation"]:
        best = max(run["history"]["validation"], key=lambda entry: entry["mdsc"])
        rows.append((f"best validation, round {best['round']}", *_numbers(regions, best)))
    header = ("cases", *(f"Dice {region}" for region in regions), "mDSC", *(f"HD95 {region} mm" for region in regions))
    scores = html.table(header, rows, 1)
    if not (run["test"] and run["test"].get("lesions")):
        return scores
    heads, cells = site_table(regions, run["test"])
    return scores + f"<p>{TITLE}:</p>" + html.table(("cases", *heads), [("test", *cells)], 1)


def _numbers(regions: tuple[str, ...], scores: dict[str, Any]) -> tuple[str, ...]:
    distances = scores.get("hd95_mm") or {}
    return (
        *(f"{scores['dice'][region]:.3f}" if region in scores["dice"] else "-" for region in regions),
        f"{scores['mdsc']:.3f}",
        *(f"{distances[region]:.1f}" if region in distances else "-" for region in regions),
    )
