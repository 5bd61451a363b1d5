"""What is remembered of a run, by hand."""

from __future__ import annotations

from fedmepd.federation.norm_bound import Size
from fedmepd.federation.records import Records
from fedmepd.methods.method import Fused, Spent


def report(**of) -> dict:
    return {
        "cases": 8,
        "losses": {"total": 2.5},
        "figures": {},
        "steps": 6,
        "seconds": 3.0,
        "validation": None,
        "peak_mib": 500.0,
        "privacy": None,
    } | of


def test_rounds_of_a_site() -> None:
    records = Records()
    records.join("site-1", 2)
    records.join("site-1", 7)
    records.take("site-1", 2, report(), Size(3.0, median=2.0), (10, 20))
    records.miss("site-1", 3, "out of memory")
    validation = {"round": 4, "dice": {"WT": 0.5}, "mdsc": 0.5}
    records.take(
        "site-1",
        4,
        report(validation=validation, figures={"proximal": 0.5}, peak_mib=400.0),
        Size(60.0, 2 / 60, 2.0),
        (30, 40),
    )
    # A figure cannot take the place of what the server knows.
    records.join("site-2", 4)
    records.take("site-2", 4, report(figures={"round": 9.0, "seconds": 1e9}), Size(1.0), (1, 2))
    assert records["site-2"]["history"]["rounds"][-1]["round"] == 4
    record = records["site-1"]
    assert (record["joined"], record["rounds_taken"]) == (2, [2, 4])
    assert record["rounds_missed"] == [{"round": 3, "reason": "out of memory"}]
    assert record["limited"] == [{"round": 4, "times_median": 30.0, "filters": 0}]
    assert record["validation"] == validation and record["history"]["validation"] == [validation]
    assert record["history"]["rounds"] == [
        {"round": 2, "total": 2.5, "steps": 6, "seconds": 3.0, "bytes_up": 10, "bytes_down": 20, "times_median": 1.5},
        {
            "round": 4,
            "total": 2.5,
            "proximal": 0.5,
            "steps": 6,
            "seconds": 3.0,
            "bytes_up": 30,
            "bytes_down": 40,
            "times_median": 30.0,
        },
    ]


def test_work_by_hand() -> None:
    """Two rounds of six steps with batches of two are 24 crops, three passes over eight cases."""
    records = Records()
    records.join("site-1", 1)
    assert records.work("site-1", 2, 1) == {
        "steps": 0,
        "passes": 0.0,
        "seconds": 0,
        "bytes_up": 0,
        "bytes_down": 0,
        "peak_mib": None,
        "networks": 1,
    }
    records.take("site-1", 1, report(), None, (10, 20))
    records.take("site-1", 2, report(peak_mib=None), None, (30, 40))
    work = {"steps": 12, "passes": 3.0, "seconds": 6.0, "bytes_up": 40, "bytes_down": 60, "peak_mib": 500.0}
    assert records.work("site-1", 2, 2) == {**work, "networks": 2}
    records.join("idle", 1)
    records.take("idle", 1, report(cases=0, steps=0), None, (0, 0))
    assert records.work("idle", 2, 1)["passes"] == 0.0


def test_work_of_a_run_that_an_older_version_began() -> None:
    records = Records()
    old = {"round": 1, "total": 0.5, "seconds": 3.0, "bytes_up": 10, "bytes_down": 20}
    records.restore({"site-1": {"history": {"rounds": [old]}}})
    work = records.work("site-1", 2, 1)
    assert (work["steps"], work["seconds"], work["bytes_down"], work["peak_mib"]) == (0, 3.0, 20, None)


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
    records.train("fusion", 0, Fused({}, {"total": 1.0}, 3), (0, 0))
    records.train("fusion", 1, Fused({}, {"total": 0.5}, 3, spent=Spent(4, 2.5, 100.0)), (70, 80))
    again.restore(records.state())
    assert list(again) == ["fusion"] and again["fusion"]["history"]["rounds"] == [
        {"round": 0, "total": 1.0, "steps": 0, "seconds": 0.0, "bytes_up": 0, "bytes_down": 0},
        {"round": 1, "total": 0.5, "steps": 4, "seconds": 2.5, "bytes_up": 70, "bytes_down": 80},
    ]
    assert again["fusion"]["peak_mib"] == 100.0
