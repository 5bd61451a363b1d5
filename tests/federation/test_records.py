"""What is remembered of a run, by hand."""

from __future__ import annotations

from fedmepd.federation.norm_bound import Size
from fedmepd.federation.records import Records


def report(**of) -> dict:
    return {"losses": {"total": 2.5}, "figures": {}, "seconds": 3.0, "validation": None} | of


def test_rounds_of_a_site() -> None:
    records = Records()
    records.join("site-1", 2)
    records.join("site-1", 7)
    records.take("site-1", 2, report(), Size(3.0, median=2.0), (10, 20))
    records.miss("site-1", 3, "out of memory")
    validation = {"round": 4, "dice": {"WT": 0.5}, "mdsc": 0.5}
    records.take(
        "site-1", 4, report(validation=validation, figures={"proximal": 0.5}), Size(60.0, 2 / 60, 2.0), (30, 40)
    )
    record = records["site-1"]
    assert (record["joined"], record["rounds_taken"]) == (2, [2, 4])
    assert record["rounds_missed"] == [{"round": 3, "reason": "out of memory"}]
    assert record["limited"] == [{"round": 4, "times_median": 30.0}]
    assert record["validation"] == validation and record["history"]["validation"] == [validation]
    assert record["history"]["rounds"] == [
        {"round": 2, "total": 2.5, "seconds": 3.0, "bytes_up": 10, "bytes_down": 20, "times_median": 1.5},
        {
            "round": 4,
            "total": 2.5,
            "proximal": 0.5,
            "seconds": 3.0,
            "bytes_up": 30,
            "bytes_down": 40,
            "times_median": 30.0,
        },
    ]


def test_personal_filters_where_their_number_changes() -> None:
    records = Records()
    records.join("site-1", 1)
    for number, (first, second) in enumerate([(0, 0), (0, 3), (0, 3), (2, 1), (0, 1)], start=1):
        records.personal("site-1", number, {"decoder.a": first, "decoder.b": second})
    assert records["site-1"]["history"]["personal"] == {
        "a": [[4, 2], [5, 0]],
        "b": [[2, 3], [4, 1]],
    }


def test_restored() -> None:
    records, again = Records(), Records()
    records.join("fusion", 0)
    records.train("fusion", 0, {"total": 1.0}, (0, 0))
    records.train("fusion", 1, {"total": 0.5}, (70, 80))
    again.restore(records.state())
    assert list(again) == ["fusion"] and again["fusion"]["history"]["rounds"] == [
        {"round": 0, "total": 1.0},
        {"round": 1, "total": 0.5, "bytes_up": 70, "bytes_down": 80},
    ]
