"""Tables as plain text, and cells of tables for spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] | None = None) -> list[str]:
    """Returns the aligned lines of a table, the heads first.

    Args:
        heads: of the columns.
        rows: as many cells each.
        left: numbers of the columns that are aligned to the left, the others to the right; None: the last one.
    """
    cells = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = {len(heads) - 1} if left is None else left
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key by which site-2 comes before site-10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun.

    >>> counted(1, "site"), counted(2, "site")
    ('1 site', '2 sites')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def markdown_text(text: str) -> str:
    """Returns a text that Markdown shows as it is: it has no HTML, and ends no cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def spreadsheet_cell(text: str) -> str:
    """Returns a text that a spreadsheet shows, and does not calculate.

    The name of a case may come from others. A cell that begins like a formula gets an apostrophe in front.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
