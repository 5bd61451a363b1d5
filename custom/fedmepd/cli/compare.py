"""The commands ``fedmepd compare``."""

from __future__ import annotations

import argparse

from fedmepd.cli.compare_show import add_show_command


def add_compare_commands(compare: argparse._SubParsersAction) -> None:
    """Adds them to the parser of ``fedmepd compare``."""
    add_show_command(compare)
