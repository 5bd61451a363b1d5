"""The command ``fedmepd methods``."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

from fedmepd import methods
from fedmepd.text_table import table

_HEADER = ("name", "title", "paper", "shared", "personal", "fusion data")
_WIDTH = 19


def add_methods_command(topics: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd``."""
    parser = topics.add_parser(
        "methods",
        help="list the methods, or describe one with its own settings",
        description="Lists the methods that a job may use: what sites share, what stays personal and what the fusion "
        "data are used for. With a name, it also describes this method and its own settings.",
    )
    parser.add_argument("name", nargs="?", choices=methods.names(), help="a method to describe; default: list all")
    parser.set_defaults(run=_methods)


def _methods(options: argparse.Namespace) -> None:
    names = methods.names() if options.name is None else [options.name]
    rows = []
    for name in names:
        method = methods.find(name)
        rows.append((method.name, method.title, method.paper, method.shared, method.personal, method.fusion))
    print(_table(_HEADER, rows, _WIDTH))
    if options.name is not None:
        print(_description(options.name))


def _description(name: str) -> str:
    import importlib
    import inspect

    from fedmepd.cli.settings_list import own_settings

    lines = ["", inspect.getdoc(importlib.import_module(f"{methods.__name__}.{name}")).strip(), ""]
    settings = own_settings(methods.find(name))
    if not settings:
        return "\n".join([*lines, "This method has no settings of its own."])
    header = ("setting", *(f"preset {name}" for name in settings[0].values), "description")
    rows = [(each.key, *each.values.values(), each.description) for each in settings]
    return "\n".join([*lines, _table(header, rows)])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = 0) -> str:
    """Returns aligned columns. Cells longer than a width above 0 are wrapped."""
    lines = []
    for row in (header, *rows):
        cells = [textwrap.wrap(cell, width) if width else [cell] for cell in row]
        lines += zip_longest(*cells, fillvalue="")
    first, *others = table(lines[0], lines[1:], left=range(len(header)))
    return "\n".join([first, "-" * max(map(len, [first, *others])), *others])
