"""Self-contained pages: style, tables and pictures in one file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

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
figure { margin: 0 0 1rem; } img { max-width: 100%; height: auto; }
.scroll td:first-child, .scroll th:first-child { position: sticky; left: 0; background: #fff; }
.wraps td { white-space: normal; min-width: 11rem; vertical-align: top; }
.wraps td:first-child { white-space: nowrap; min-width: 0; }
.wide { min-width: 44rem; }
.running { padding: 0.5rem 0.8rem; background: #fff3cd; border-left: 4px solid #b58100; }
pre { white-space: pre-wrap; font-size: 0.8rem; background: #f6f6f6; padding: 0.8rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  figure, table { break-inside: avoid; }
  .scroll { overflow: visible; } .wide { min-width: 0; } table { font-size: 7.5pt; } th, td { padding: 1pt 3pt; } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """Returns a whole page from its title and the HTML of its parts."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</body></html>",
            "",
        ]
    )


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    text_columns: int,
    marks: Sequence[str] = (),
    *,
    wraps: bool = False,
) -> str:
    """Returns a table.

    Args:
        header: the columns' names.
        rows: cells.
        text_columns: number of columns at the left that hold text, not numbers.
        marks: class of each row; none: no row has one.
        wraps: whether cells are sentences, which may take several lines.
    """
    marks = marks or [""] * len(rows)
    body = "\n".join(_row("td", row, text_columns, mark) for row, mark in zip(rows, marks, strict=True))
    head = _row("th", header, text_columns)
    kind = ' class="wraps"' if wraps else ""
    return f'<div class="scroll"><table{kind}><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


def _row(tag: str, cells: Sequence[str], text_columns: int, mark: str = "") -> str:
    scope = ' scope="col"' if tag == "th" else ""
    made = [
        f"<{tag}{scope}" + (' class="text"' if place < text_columns else "") + f">{escape(cell)}</{tag}>"
        for place, cell in enumerate(cells)
    ]
    return f"<tr{f' class={mark!r}' if mark else ''}>{''.join(made)}</tr>"


def items(lines: Iterable[str]) -> str:
    """Returns a list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def figure(content: bytes, text: str) -> str:
    """Returns a picture with a text that describes it, also for those who cannot see it.

    Args:
        content: PNG.
        text: under it.
    """
    data = base64.b64encode(content).decode()
    return (
        f'<figure><div class="scroll"><img class="wide" alt="{escape(text)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def settings(run: dict[str, Any]) -> list[str]:
    """Returns the end of a page: version, seed and settings of a run."""
    versions = "".join(f", {name} {version}" for name, version in run.get("versions", {}).items())
    return [
        "<h2>Settings</h2>",
        f"<p>seed {run['seed']}; fedmepd {escape(run['version'] + versions)}</p>",
        f"<pre>{escape(json.dumps(run['settings'], indent=2))}</pre>",
        "<p>For research. Not a medical device.</p>",
    ]
