"""Imports go downwards in the table of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedmepd

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fedmepd.__file__).parent


def rows() -> dict[str, int]:
    """The row of every package and module, from the top."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("| package | what belongs there |")[2]
    lines = [line for line in text.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    names = [re.findall(r"`([a-z_]+)(?:\.py)?`", line.split("|")[1]) for line in lines]
    return {name: row for row, of_row in enumerate(names) for name in of_row}


def imported(source: str) -> Iterator[str]:
    """What a file imports of the package, by the first name below it; also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "fedmepd":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedmepd."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fedmepd."))


def test_every_package_is_in_the_table() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert there - {"__init__", "__pycache__"} == set(rows())


@pytest.mark.parametrize("name", list(rows()))
def test_imports_go_downwards(name: str) -> None:
    row = rows()
    files = [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").is_file() else sorted((PACKAGE / name).rglob("*.py"))
    assert files
    for file in files:
        path = file.relative_to(PACKAGE).as_posix()
        for other in imported(file.read_text()):
            if other in row:
                assert row[other] >= row[name], f"{path} imports {other}, which stands above {name}"


def test_imports_are_found() -> None:
    source = (
        "import fedmepd.cli\ndef f():\n    from fedmepd.data.cases import Case\n    from fedmepd import methods, errors"
    )
    assert sorted(imported(source)) == ["cli", "data", "errors", "methods"]
