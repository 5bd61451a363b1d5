from fedmepd.text_table import table


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
