"""Self-contained pages: style, tables and pictures in one file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from fedmepd.reporting.plotting import Picture

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 72rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.headline { display: flex; flex-wrap: wrap; gap: 0.8rem; margin: 1rem 0; }
.headline div { flex: 1 1 9rem; box-sizing: border-box; padding: 0.6rem 0.9rem; background: #f3f5f7;
  border-left: 4px solid #0072b2; }
.headline b { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.headline small, .facts, figcaption { color: #444; }
.tables { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
.tables > div { max-width: 100%; }
.scroll { overflow-x: auto; }
.dot { display: inline-block; border: 0.32em solid; border-radius: 50%; margin-right: 0.25em; }
caption { text-align: left; padding: 0.6rem 0.6rem 0.25rem; color: #444; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th.text, td.text { text-align: left; }
tr.mean td, tr.server td { font-weight: 600; }
figure { margin: 0 0 1rem; } img { max-width: 100%; height: auto; }
td small { display: block; color: #444; font-weight: 400; font-size: 0.88em; white-space: normal; }
.scroll td:first-child, .scroll th:first-child { position: sticky; left: 0; background: #fff; }
.wraps td { white-space: normal; min-width: 11rem; vertical-align: top; }
.wraps td:first-child { white-space: nowrap; min-width: 0; }
.running { padding: 0.5rem 0.8rem; background: #fff3cd; border-left: 4px solid #b58100; }
.settings td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
summary { cursor: pointer; margin: 0.8rem 0; }
@media (max-width: 37.5rem) { h1 { font-size: 1.25rem; } table { font-size: 0.8rem; }
  th, td { padding: 0.25rem 0.35rem; } .tables td:first-child { white-space: normal; overflow-wrap: anywhere; }
  .headline { gap: 0.5rem; } .headline div { flex-basis: 6.5rem; padding: 0.4rem 0.6rem; }
  .headline b { font-size: 1.4rem; } ul { padding-left: 1.1rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } h2 + figure { break-before: avoid; } img { max-height: 21cm; }
  details::details-content { content-visibility: visible; } summary { display: none; }
  .scroll { overflow: visible; } table { font-size: 7.5pt; } th, td { padding: 1pt 3pt; } }
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
    kind: str = "",
    caption: str = "",
    colours: Mapping[str, str] | None = None,
    details: Sequence[str] = (),
) -> str:
    """Returns a table.

    Args:
        header: the columns' names.
        rows: cells.
        text_columns: number of columns at the left that hold text, not numbers.
        marks: class of each row; none: no row has one.
        kind: class of the table: ``wraps`` if cells are sentences, which may take several lines; ``settings``.
        caption: over it.
        colours: by words of the columns' names (regions), shown as a dot before the name.
        details: small text under the first cell of each row.
    """
    marks, details = marks or [""] * len(rows), details or [""] * len(rows)
    body = "\n".join(
        _row("td", map(escape, row), text_columns, mark, detail)
        for row, mark, detail in zip(rows, marks, details, strict=True)
    )
    head = _row("th", [_dot(name, colours or {}) + escape(name) for name in header], text_columns)
    over = f"<caption>{escape(caption)}</caption>" if caption else ""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{of_kind}>{over}<thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


def _row(tag: str, cells: Iterable[str], text_columns: int, mark: str = "", detail: str = "") -> str:
    scope = ' scope="col"' if tag == "th" else ""
    made = [
        f"<{tag}{scope}" + (' class="text"' if place < text_columns else "") + f">{cell}</{tag}>"
        for place, cell in enumerate(cells)
    ]
    if detail:
        made[0] = made[0].replace(f"</{tag}>", f"<small>{escape(detail)}</small></{tag}>")
    return f"<tr{f' class={mark!r}' if mark else ''}>{''.join(made)}</tr>"


def _dot(name: str, colours: Mapping[str, str]) -> str:
    colour = next((colours[word] for word in name.split() if word in colours), None)
    # A border, because browsers print no backgrounds.
    return f'<span class="dot" style="border-color: {escape(colour)}"></span>' if colour else ""


def headline(numbers: Iterable[tuple[str, str, str]]) -> str:
    """Returns large numbers beside one another; of each what it is, the number, and more about it."""
    boxes = [
        f"<div>{escape(what)}<b>{escape(number)}</b><small>{escape(more)}</small></div>"
        for what, number, more in numbers
    ]
    return f'<div class="headline">{"".join(boxes)}</div>'


def items(lines: Iterable[str]) -> str:
    """Returns a list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def figure(picture: Picture, text: str) -> str:
    """Returns a picture with a text that describes it, also for those who cannot see it.

    Args:
        picture: its files; the narrow one is for screens of up to 600 pixels.
        text: under it.
    """
    narrow = f'<source media="(max-width: 37.5rem)" srcset="{_address(picture.narrow)}">'
    image = f'<img alt="{escape(text)}" src="{_address(picture.wide)}">'
    return f"<figure><picture>{narrow}{image}</picture><figcaption>{escape(text)}</figcaption></figure>"


def photograph(content: bytes, text: str) -> str:
    """Returns a PNG that there is in one size alone, as :func:`figure` does."""
    image = f'<img alt="{escape(text)}" src="{_address(content)}">'
    return f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>"


def _address(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
