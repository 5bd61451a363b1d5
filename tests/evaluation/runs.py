"""Results of a small made-up run, for the tests of results, tables and the command line."""

from __future__ import annotations

from typing import Any

from fedmepd.evaluation.results import build, site_entry
from fedmepd.job_settings import make_settings

SETTINGS = make_settings("phantom", {"rounds": 3, "seed": 7})


def summary(dice: float, hd95: float, empty_et: int = 0) -> dict[str, Any]:
    """ET has half the Dice of WT and TC, and twice their distance."""
    return {
        "dice": {"WT": dice, "TC": dice, "ET": dice / 2},
        "mdsc": dice * 5 / 6,
        "hd95_mm": {"WT": hd95, "TC": hd95, "ET": 2 * hd95},
        "empty": {"WT": 0, "TC": 0, "ET": empty_et},
        "nsd": {"WT": dice, "TC": dice, "ET": dice / 2},
        "lesions": {
            region: {"dice": dice / 2, "hd95_mm": 10 * hd95, "found": 4, "missed": 1, "invented": number}
            for number, region in enumerate(("WT", "TC", "ET"))
        },
    }


def validation(round: int, dice: float) -> dict[str, Any]:
    return {"round": round, "dice": {"WT": dice, "TC": dice, "ET": dice}, "mdsc": dice}


def record(**of: Any) -> dict[str, Any]:
    """What a run remembers of a site that took part in all three rounds, but for what is said."""
    plain = {"joined": 1, "rounds_taken": [1, 2, 3], "rounds_missed": [], "limited": [], "history": {}}
    return plain | {"validation": None, "test": None, "untested": None} | of


def entries() -> list[dict[str, Any]]:
    """Three sites in an order that is not theirs; site-2 has no test case, site-10 missed round 2."""
    cases = {"train": 8, "validation": 2, "test": 4}
    return [
        site_entry(
            "site-10",
            ("T2",),
            cases,
            record(
                test=summary(0.6, 9.0, empty_et=2),
                validation=validation(3, 0.5),
                rounds_taken=[1, 3],
                rounds_missed=[{"round": 2, "reason": "out of memory"}],
            ),
            personal_share=0.25,
        ),
        site_entry(
            "site-1",
            ("FLAIR", "T1ce"),
            cases,
            record(test=summary(0.9, 3.0), validation=validation(3, 0.7)),
            personal_share=0.05,
        ),
        site_entry("site-2", ("T1",), {**cases, "validation": 0, "test": 0}, record(), personal_share=0.0),
    ]


def server() -> dict[str, Any]:
    return site_entry(
        "server",
        ("FLAIR", "T1ce", "T1", "T2"),
        {"train": 24, "validation": 3, "test": 12},
        record(test=summary(0.84, 5.0, empty_et=1), validation=validation(3, 0.8), rounds_taken=[], joined=0),
    )


DATE = "2026-11-30T12:00:00+00:00"
TIMING = {
    "seconds": {"start_up": 10.04, "site_training": 20.0, "fusion_training": 15.0, "saving": 3.0, "testing": 4.96},
    "shares": {"start_up": 0.19, "site_training": 0.38, "fusion_training": 0.28, "saving": 0.06, "testing": 0.09},
    "mean_round": {"site_training": 10.0, "fusion_training": 5.0, "saving": 1.5},
    "overhead": {"seconds": 1.5, "share_of_training": 0.1},
    "start_up_of_sites": {"site-1": {"process": 4.0, "data": 1.0}},
    "rounds": [],
}


def finished() -> dict[str, Any]:
    run = build(SETTINGS, status="finished", round=3, seconds=61.7, timing=TIMING, server=server(), sites=entries())
    # The clock's in a real run: two calls are to give the same.
    return run | {"date": DATE}


def running() -> dict[str, Any]:
    """Round 2 of 3 is over; nothing is tested."""
    sites = [{**entry, "test": None, "rounds_taken": [1, 2], "rounds_missed": []} for entry in entries()]
    return build(
        SETTINGS, status="running", round=2, seconds=30, timing=TIMING, server={**server(), "test": None}, sites=sites
    )
