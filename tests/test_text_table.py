import csv
import io

import pytest

from fedmepd.text_table import spreadsheet_cell, table


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


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\r=1"])
def test_names_that_a_spreadsheet_would_calculate(name: str) -> None:
    """As they are read back, with the apostrophe in front."""
    text = io.StringIO()
    csv.writer(text).writerow([spreadsheet_cell(name), spreadsheet_cell("BraTS-GLI-00001-000")])
    text.seek(0)
    assert next(csv.reader(io.StringIO(text.getvalue(), newline=""))) == [f"'{name}", "BraTS-GLI-00001-000"]
