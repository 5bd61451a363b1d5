"""The command ``fedmepd report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedmepd.cli.terminal import elsewhere_with


def add_report_command(topics: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd``."""
    parser = topics.add_parser(
        "report",
        help="write a run's table, curves and settings as one HTML page, and its figures as PNG",
        description="Writes one self-contained HTML page about a run, finished or not, and its figures as PNG files. "
        "For a site's own folder it writes the site's page, with pictures of its test cases.",
    )
    parser.add_argument(
        "workspace", type=Path, help="workspace of a simulator, a downloaded job, a run folder, or a site's kit"
    )
    parser.add_argument("--out", type=Path, help="folder to write to; default: report, beside the results")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    from fedmepd.cli.runs import chosen_run, chosen_site
    from fedmepd.evaluation.site_results import FILE_NAME
    from fedmepd.reporting.page import write_report
    from fedmepd.reporting.site_page import write_site_report

    site = chosen_site(options.workspace)
    with elsewhere_with("--out"):
        if site is not None:
            written = write_site_report(site, options.out or site.parent / "report")
        else:
            written = write_report(chosen_run(options.workspace, also=(FILE_NAME,)), options.out)
    print(f"wrote {written}")
