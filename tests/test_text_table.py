import ast
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedmepd
from fedmepd.text_table import counted, spreadsheet_cell, table

ROOT = Path(__file__).parents[1]


def test_numbers_to_the_right_the_last_column_to_the_left() -> None:
    assert table(["cases", "site"], [["3", "a"], ["12345678", "clinic of B"]]) == [
        "   cases  site",
        "       3  a",
        "12345678  clinic of B",
    ]


def test_columns_to_the_left_are_named() -> None:
    assert table(["site", "n", "dice"], [["one", "x", "1"], ["fusion", "", "0.25"]], left=(0, 1)) == [
        "site    n  dice",
        "one     x     1",
        "fusion     0.25",
    ]


def test_no_rows() -> None:
    assert table(["a", "b"], []) == ["a  b"]


@pytest.mark.parametrize(("number", "text"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (1000, "1000 cases")])
def test_a_number_with_its_noun(number: int, text: str) -> None:
    assert counted(number, "case") == text


def lengths_before_plurals(source: str) -> Iterator[str]:
    """Texts such as ``{len(cases)} labelled cases``, which are wrong for one."""
    texts = (node.values for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr))
    for parts in texts:
        for number, after in zip(parts, parts[1:], strict=False):
            if isinstance(after, ast.Constant) and isinstance(number, ast.FormattedValue):
                plural = re.match(r" ([a-z]+ )?(?!(?:is|its|as|has)\b)[a-z]+s\b", after.value)
                if plural and ast.unparse(number.value).startswith("len("):
                    yield ast.unparse(number.value) + plural.group()


def test_what_counts_before_a_plural_is_found() -> None:
    source = 'f"{len(a)} cases, {len(b)} test cases, {len(c)} is much, {name} holds sites, {len(d)} more"'
    assert list(lengths_before_plurals(source)) == ["len(a) cases", "len(b) test cases"]


def test_no_message_has_a_plural_after_a_length() -> None:
    """What may be one goes through :func:`counted`."""
    files = [ROOT / "job.py", *sorted(Path(fedmepd.__file__).parent.rglob("*.py"))]
    assert {file.name: found for file in files if (found := list(lengths_before_plurals(file.read_text())))} == {}


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\r=1"])
def test_names_that_a_spreadsheet_would_calculate(name: str) -> None:
    """As they are read back, with the apostrophe in front."""
    text = io.StringIO()
    csv.writer(text).writerow([spreadsheet_cell(name), spreadsheet_cell("BraTS-GLI-00001-000")])
    text.seek(0)
    assert next(csv.reader(io.StringIO(text.getvalue(), newline=""))) == [f"'{name}", "BraTS-GLI-00001-000"]
