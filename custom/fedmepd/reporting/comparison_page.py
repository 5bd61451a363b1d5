"""A comparison as files: one self-contained page, Markdown, JSON, and every figure as PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmepd.comparing.sections import Section, sections, title
from fedmepd.comparing.text import markdown
from fedmepd.reporting import comparison_figures, html, plotting
from fedmepd.storage import write_atomically, write_json, write_text

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
    drawn = {
        "heat_map": comparison_figures.heat_map(comparison),
        "differences": comparison_figures.differences(comparison),
        "curves": comparison_figures.curves(comparison),
    }
    pictures = {}
    for name, figure in drawn.items():
        if figure is not None:
            pictures[name] = plotting.png(figure)
            for kind, content in (("png", pictures[name]), ("svg", plotting.svg(figure))):
                path = folder / "figures" / f"{name}.{kind}"
                write_atomically(path, lambda file, content=content: file.write(content))
    write_json(folder / "comparison.json", comparison)
    write_text(folder / "comparison.md", markdown(comparison))
    write_text(folder / FILE_NAME, page(comparison, pictures))
    return folder / FILE_NAME


def page(comparison: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """Returns the HTML.

    Args:
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
        pictures: PNG files by name.
    """
    body = []
    for section in sections(comparison):
        body += _section(section)
        for name, (heading, text) in _PICTURES.items():
            if name in pictures and section.title.startswith(heading):
                body.append(html.figure(pictures[name], text))
    body.append(f"<p>fedmepd {comparison['version']}. For research. Not a medical device.</p>")
    return html.document(title(comparison), body)


def _section(section: Section) -> list[str]:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.rows:
        parts.append(html.table(section.header, section.rows, section.text_columns, wraps=section.wraps))
    if section.notes:
        parts.append(html.items(section.notes))
    return parts
