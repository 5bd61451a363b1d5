"""A comparison as plain text and as Markdown."""

from __future__ import annotations

from typing import Any

from fedmepd.comparing.sections import Section, sections, title
from fedmepd.text_table import markdown_text, table


def console_text(comparison: dict[str, Any]) -> str:
    """Returns all sections as plain text, the sentences about the rivals at the end."""
    said, *others = sections(comparison)
    ordered = [*others, said] if comparison["sentences"] else [said, *others]
    return "\n\n".join([title(comparison), *("\n".join(_plain(section)) for section in ordered)]) + "\n"


def _plain(section: Section) -> list[str]:
    lines = [section.title, "-" * len(section.title)]
    if section.rows:
        lines += table(section.header, section.rows, left=range(section.text_columns))
    return [*lines, *(f"- {note}" for note in section.notes)]


def markdown(comparison: dict[str, Any], level: int = 1) -> str:
    """Returns all sections as Markdown.

    Args:
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.
        level: of the heading of the whole.
    """
    parts = [f"{'#' * level} {title(comparison)}"]
    for section in sections(comparison):
        parts.append(f"{'#' * (level + 1)} {section.title}")
        if section.rows:
            parts.append("\n".join(markdown_table(section)))
        if section.notes:
            parts.append("\n".join(f"- {markdown_text(note)}" for note in section.notes))
    return "\n\n".join(parts) + "\n"


def markdown_table(section: Section) -> list[str]:
    """Returns the lines of a section's table."""
    rule = ["---"] * section.text_columns + ["---:"] * (len(section.header) - section.text_columns)
    return [f"| {' | '.join(map(markdown_text, row))} |" for row in (section.header, rule, *section.rows)]
