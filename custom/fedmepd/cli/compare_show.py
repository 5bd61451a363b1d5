"""The command ``fedmepd compare show``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_compare_show_command(compare: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd compare``."""
    parser = compare.add_parser(
        "show",
        help="compare finished runs: scores, differences with intervals, ranking, cost",
        description="Compares finished runs of several methods on the same cases. It takes workspaces, run folders, "
        "downloaded jobs, the folder of `fedmepd compare run`, and results.json files, and uses every run below them. "
        "Runs on different cases, or scored in different ways, are refused.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNS", help="folders with runs below them, or their files"
    )
    parser.add_argument(
        "--against", metavar="METHOD", help="the method that the others are compared with; default: fedmepd"
    )
    parser.add_argument(
        "--complete",
        action="store_true",
        help="leave out methods that lack a seed which another has, as long as their runs go on; default: only the "
        "seeds that all methods have count",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of text")
    form.add_argument("--markdown", action="store_true", help="print Markdown instead of text")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="also write comparison.html, .md and .json there, and every figure as PNG and SVG",
    )
    parser.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> None:
    from fedmepd.comparing.comparison import compare
    from fedmepd.comparing.text import console_text, markdown

    comparison = compare(options.runs, options.against, complete=options.complete)
    if options.json:
        print(json.dumps(comparison, indent=2))
    else:
        print(markdown(comparison) if options.markdown else console_text(comparison), end="")
    if options.out is not None:
        from fedmepd.reporting.comparison_page import write_comparison

        page = write_comparison(comparison, options.out)
        if not options.json and not options.markdown:
            print(f"\nwrote {page}")
