"""The command ``fedmepd egress``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fedmepd.cli.terminal import FAULTY

if TYPE_CHECKING:
    from fedmepd.federation.egress import Egress


def add_egress_command(topics: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd``."""
    egress = topics.add_parser(
        "egress",
        help="list all that has left a site: what, how much, over how many cases, when, to whom",
        description="Prints the list that a site keeps of every message that has left it, and checks that nothing in "
        "the list was changed. Exit status: 0 the list is whole, 1 it is not.",
    )
    egress.add_argument("folder", type=Path, help="a site's kit or its folder in a workspace; or a workspace")
    egress.add_argument("--job", metavar="ID", help="only of this job, by FLARE's id or the id of a run")
    form = egress.add_mutually_exclusive_group()
    form.add_argument("--entries", action="store_true", help="print every message instead of sums by kind")
    form.add_argument("--json", action="store_true", help="print every message with all of its items as JSON")
    form.add_argument("--page", type=Path, metavar="FILE", help="write a page (HTML) instead of printing")
    egress.add_argument(
        "--known", metavar="HASH", help="a hash that was noted earlier: check that the list still has its line"
    )
    egress.set_defaults(run=_egress)


def _egress(options: argparse.Namespace) -> int:
    from fedmepd.federation.egress import find, read
    from fedmepd.reporting.egress_page import write_page

    lists = [read(path) for path in find(options.folder)]
    lost = options.known is not None and not any(each.contains(options.known) for each in lists)
    shown = [each.of_job(options.job) if options.job else each for each in lists]
    if options.page:
        write_page(options.page, shown)
        print(f"wrote {options.page}")
    elif options.json:
        content = [
            {"file": str(each.path), "fault": each.fault, "entries": [entry.model_dump() for entry in each.entries]}
            for each in shown
        ]
        print(json.dumps(content, indent=2))
    else:
        _print(shown, entries=options.entries)
    if lost:
        # Where standard output is JSON, it stays JSON.
        text = f"no line has the hash {options.known}: lines were removed, or it is the hash of another list"
        print(text, file=sys.stderr if options.json else sys.stdout)
    return FAULTY if lost or any(each.fault for each in lists) else 0


def _print(lists: list[Egress], *, entries: bool) -> None:
    from fedmepd.reporting.egress_page import ENTRY_HEADS, HEADS, entry_rows, rows, said
    from fedmepd.text_table import table

    for place, each in enumerate(lists):
        print(*([""] if place else []), *said(each), sep="\n")
        heads, cells = (ENTRY_HEADS, entry_rows(each)) if entries else (HEADS, rows(each))
        if cells:
            print(*table(heads, cells, left={0, len(heads) - 1}), sep="\n")
