"""What has left a site, as tables and as a page for those who are responsible for the data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fedmepd.errors import plain_text
from fedmepd.federation.egress import Egress, Entry, Item
from fedmepd.reporting.html import document, items, table
from fedmepd.storage import write_text
from fedmepd.text_table import counted

# Every kind of item in words, in the order of the tables.
KINDS = {
    "updates": "changes of shared weights",
    "extras": "other tensors of the method",
    "anchors": "class anchors",
    "model": "the site's model, for tests at other sites",
    "profile": "name, modalities and numbers of cases",
    "counts": "counts",
    "losses": "mean losses and figures of the method",
    "validation_scores": "mean scores on validation cases",
    "test_scores": "mean scores on test cases",
    "model_scores": "mean scores of others' models",
    "case_scores": "scores of single test cases",
    "durations": "durations",
    "memory": "memory that was held",
    "live": "progress for the administrator's console",
    "reason": "reasons why a task was not done",
    "message": "what the message itself needs",
    "other": "what other components of the job have added",
}

HEADS = ("what", "messages", "values", "bytes", "cases, at least", "norm, at most", "first", "last", "kind")
ENTRY_HEADS = ("time", "number", "round", "bytes", "task", "job", "to", "kinds")


def said(of: Egress) -> list[str]:
    """Returns sentences about a list: its file, whether it is whole, and the hash to note."""
    count = len(of.entries)
    whole = f"NOT WHOLE: {of.fault}; what follows is what comes before" if of.fault else "whole: no line was changed"
    lines = [f"{of.path}: {counted(count, 'message')}; {whole}"]
    if of.entries:
        lines.append(f"hash of the last line, to note elsewhere: {of.head}")
        lines.append(f"to: {', '.join(sorted({plain_text(entry.to) for entry in of.entries}))}")
    return lines


def rows(of: Egress) -> list[list[str]]:
    """Returns a row for each kind of item, with the columns of :data:`HEADS`."""
    return [_row(kind, of.entries) for kind in _kinds(of.entries)]


def _kinds(entries: Iterable[Entry]) -> list[str]:
    there = {item.kind for entry in entries for item in entry.items}
    return [*(kind for kind in KINDS if kind in there), *sorted(there - KINDS.keys())]


def _row(kind: str, entries: list[Entry]) -> list[str]:
    having = [(entry, [item for item in entry.items if item.kind == kind]) for entry in entries]
    having = [(entry, of_kind) for entry, of_kind in having if of_kind]
    all_items = [item for _, of_kind in having for item in of_kind]
    cases = [item.cases for item in all_items if item.cases is not None]
    norms = [sum(item.norm**2 for item in of_kind if item.norm is not None) ** 0.5 for _, of_kind in having]
    return [
        plain_text(KINDS.get(kind, kind)),
        str(len(having)),
        str(sum(map(_values, all_items))),
        str(sum(item.bytes for item in all_items)),
        str(min(cases)) if cases else "",
        f"{max(norms):.3g}" if any(item.norm is not None for item in all_items) else "",
        _when(having[0][0]),
        _when(having[-1][0]),
        plain_text(kind),
    ]


def _values(item: Item) -> int:
    count = 1
    for side in item.shape:
        count *= side
    return count


def _when(entry: Entry) -> str:
    return plain_text(entry.time[:19].replace("T", " "))


def entry_rows(of: Egress) -> list[list[str]]:
    """Returns a row for each message, with the columns of :data:`ENTRY_HEADS`."""
    return [
        [
            _when(entry),
            str(entry.number),
            "" if entry.round is None else str(entry.round),
            str(sum(item.bytes for item in entry.items)),
            # The server named task and job. A control character could hide the line, or others.
            plain_text(entry.task) + ("" if entry.code == "OK" else f" ({plain_text(entry.code)})"),
            plain_text(entry.job),
            plain_text(entry.to),
            plain_text(", ".join(_kinds([entry]))),
        ]
        for entry in of.entries
    ]


def page(lists: Iterable[Egress]) -> str:
    """Returns a page with all lists: sums by kind, then every message."""
    body: list[str] = []
    for of in lists:
        body.append(items(said(of)))
        if of.entries:
            body.append(table(HEADS, rows(of), 1))
            body.append("<h2>Every message</h2>")
            body.append(table(ENTRY_HEADS, entry_rows(of), 1))
    return document("What has left the site", body)


def write_page(file: Path, lists: Iterable[Egress]) -> None:
    """Writes the page."""
    write_text(file, page(lists))
