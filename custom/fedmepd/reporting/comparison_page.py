"""A comparison as files: one self-contained page, Markdown, JSON, and every figure as PNG and SVG."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fedmepd.comparing.sections import Section, sections, title
from fedmepd.comparing.text import markdown
from fedmepd.reporting import comparison_figures, html, plotting
from fedmepd.reporting.plotting import Picture
from fedmepd.storage import write_atomically, write_json, write_text
from fedmepd.tasks.find import find_task, task_names

FILE_NAME = "comparison.html"

# Title of the section that a figure follows, what the figure shows (for those who cannot see it).
_PICTURES = {
    "heat_map": (
        "Scores",
        "mDSC of each method (row) on the test cases of each site (column), mean over seeds; the mean of the sites and "
        "the worst site at the left.",
    ),
    "differences": (
        "Differences to",
        "mDSC of the reference minus that of each other method with the 95 % interval. To the right of 0 the reference "
        "is better; where a bar holds 0, no difference is shown.",
    ),
    "curves": (
        "Convergence",
        "Validation mDSC (mean of the sites) against training steps and against MB, mean over seeds; the band is one "
        "standard deviation to either side.",
    ),
}


def write_comparison(comparison: dict[str, Any], folder: Path) -> Path:
    """Writes comparison.html, .md and .json, and ``figures/`` with PNG and SVG; returns the page.

    Args:
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
        folder: to write to.

    Raises:
        FedMEPDError: the disk is full or the folder cannot be written.
    """
    drawings = {
        "heat_map": partial(comparison_figures.heat_map, comparison),
        "differences": partial(comparison_figures.differences, comparison),
        "curves": partial(comparison_figures.curves, comparison),
    }
    pictures = {}
    for name, draw in drawings.items():
        picture = plotting.picture(lambda layout, draw=draw: draw(layout=layout))
        if picture is not None:
            pictures[name] = picture
            for kind, content in (("png", picture.wide), ("svg", plotting.svg(draw()))):
                path = folder / "figures" / f"{name}.{kind}"
                write_atomically(path, lambda file, content=content: file.write(content))
    write_json(folder / "comparison.json", comparison)
    write_text(folder / "comparison.md", markdown(comparison))
    write_text(folder / FILE_NAME, page(comparison, pictures))
    return folder / FILE_NAME


def page(comparison: dict[str, Any], pictures: dict[str, Picture]) -> str:
    """Returns the HTML.

    Args:
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
        pictures: by name.
    """
    # A task of somebody else need not be installed here.
    body, colours = [], find_task(comparison["task"]).colours if comparison["task"] in task_names() else {}
    for section in sections(comparison):
        body += _section(section, colours)
        for name, (heading, text) in _PICTURES.items():
            if name in pictures and section.title.startswith(heading):
                body.append(html.figure(pictures[name], text))
    body.append(f"<p>fedmepd {comparison['version']}. For research. Not a medical device.</p>")
    return html.document(title(comparison), body)


def _section(section: Section, colours: dict[str, str]) -> list[str]:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.rows:
        kind = "wraps" if section.wraps else ""
        parts.append(html.table(section.header, section.rows, section.text_columns, kind=kind, colours=colours))
    if section.notes:
        parts.append(html.items(section.notes))
    return parts
