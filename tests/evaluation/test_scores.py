from __future__ import annotations

import csv
import json
from math import comb
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from fedmepd.evaluation.measures import RegionMeasures
from fedmepd.evaluation.scores import average, build, console_table, write
from fedmepd.tasks.brats import BRATS

# Its second lesion is invented.
GOOD = RegionMeasures(0.9, 2.0, 0.8, 0.99, 10.0, 12.0, 0.7, 0.45, 188.0, 1, 0, 1)
MISSED = RegionMeasures(0.0, 373.13, 0.0, 1.0, 4.0, 0.0, 0.0, 0.0, 374.0, 0, 2, 0)
INVENTED = RegionMeasures(0.0, 373.13, None, 0.98, 0.0, 1.0, 0.0, 0.0, 374.0, 0, 0, 1)
NEITHER = RegionMeasures(1.0, 0.0, None, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0, 0, 0)

CASES = {
    "a": {"WT": GOOD, "TC": GOOD, "ET": NEITHER},
    "b": {"WT": GOOD, "TC": MISSED, "ET": INVENTED},
    "c": {"WT": GOOD, "TC": GOOD, "ET": INVENTED},
}


def test_averages_by_hand() -> None:
    assert average([0.5, None, 0.9, 0.4]) | {"low": 0, "high": 0} == pytest.approx(
        {"cases": 3, "mean": 0.6, "median": 0.5, "low": 0, "high": 0}
    )
    assert average([]) == average([None]) == {"cases": 0, "mean": None, "median": None, "low": None, "high": None}
    # One case says nothing about others.
    assert average([0.7]) == {"cases": 1, "mean": 0.7, "median": 0.7, "low": None, "high": None}
    assert average([0.7, 0.7])["low"] == average([0.7, 0.7])["high"] == 0.7
    # Of two cases the same one is drawn twice in a quarter of the draws each.
    assert (average([0.0, 1.0])["low"], average([0.0, 1.0])["high"]) == (0, 1)


def test_interval_of_yes_and_no() -> None:
    """The mean of draws from ones and zeros is binomial, so the interval is known without drawing."""
    found = average([1.0] * 14 + [0.0] * 6)
    ends = [quantile(20, 14 / 20, share) / 20 for share in (0.025, 0.975)]
    assert (found["low"], found["high"]) == pytest.approx(ends)
    assert ends == [0.5, 0.9]


def quantile(count: int, chance: float, share: float) -> int:
    """The smallest number that at least ``share`` of a binomial distribution does not exceed."""
    total, number = 0.0, -1
    while total < share:
        number += 1
        total += comb(count, number) * chance**number * (1 - chance) ** (count - number)
    return number


def test_interval_of_many_cases_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).beta(5, 2, 400)
    found = average(values.tolist())
    reach = 1.96 * values.std() / 20
    assert (found["low"], found["high"]) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.001)


def test_interval_follows_the_seed() -> None:
    values = np.random.default_rng(1).beta(5, 2, 30).tolist()
    assert average(values) == average(values, seed=0) != average(values, seed=1)


def test_summary() -> None:
    report = build(BRATS, CASES, without_label=["x"], without_prediction=["y", "z"])
    assert (report["task"], report["empty_distance_mm"]) == ("brats", 373.13)
    assert [key for key in report if key not in ("task", "empty_distance_mm")] == [
        "version",
        "nsd_tolerance_mm",
        "lesion_rules",
        "cases",
        "summary",
        "bootstrap",
        "without_label",
        "without_prediction",
    ]
    assert (report["without_label"], report["without_prediction"]) == (["x"], ["y", "z"])
    assert report["bootstrap"] == {"resamples": 10_000, "confidence": 0.95, "seed": 0}
    regions = report["summary"]["regions"]
    assert [regions[name]["empty"] for name in ("WT", "TC", "ET")] == [
        {"both": 0, "label": 0, "prediction": 0},
        {"both": 0, "label": 0, "prediction": 1},
        {"both": 1, "label": 2, "prediction": 0},
    ]
    assert regions["ET"]["sensitivity"]["cases"] == 0 and regions["ET"]["specificity"]["cases"] == 3
    assert regions["TC"]["dice"]["mean"] == pytest.approx(0.6) and regions["TC"]["dice"]["median"] == 0.9
    assert regions["ET"]["hd95_mm"]["mean"] == pytest.approx(2 * 373.13 / 3)
    assert regions["TC"]["lesion_dice"]["mean"] == pytest.approx(0.3) and regions["TC"]["nsd"]["median"] == 0.7
    assert regions["TC"]["lesion_hd95_mm"]["mean"] == pytest.approx(250)
    assert [regions[name]["lesions"] for name in ("WT", "TC", "ET")] == [
        {"found": 3, "missed": 0, "invented": 3},
        {"found": 2, "missed": 2, "invented": 2},
        {"found": 0, "missed": 0, "invented": 2},
    ]
    rules = {"dilation": 3, "neighbours": 26, "smallest_voxels": 50, "missed_mm": 374.0}
    assert (report["lesion_rules"], report["nsd_tolerance_mm"]) == (rules, 1.0)
    mdsc = [case["mdsc"] for case in report["cases"]]
    assert mdsc == pytest.approx([2.8 / 3, 0.3, 0.6])
    assert report["summary"]["mdsc"]["mean"] == pytest.approx(fmean(mdsc)) and report["summary"]["cases"] == 3


def test_files(tmp_path: Path) -> None:
    report = build(BRATS, CASES)
    written = write(tmp_path / "out", report)
    assert [path.name for path in written] == ["evaluation.csv", "evaluation.json"]
    assert json.loads(written[1].read_text()) == report
    lines = list(csv.reader(written[0].read_text().splitlines()))
    assert lines[0] == [
        *("case", "region", "dice", "hd95_mm", "nsd", "lesion_dice", "lesion_hd95_mm"),
        *("sensitivity", "specificity", "label_ml", "prediction_ml"),
        *("lesions_found", "lesions_missed", "lesions_invented"),
    ]
    assert len(lines) == 10
    assert lines[1] == ["a", "WT", "0.9", "2", "0.7", "0.45", "188", "0.8", "0.99", "10", "12", "1", "0", "1"]
    assert lines[6] == ["b", "ET", "0", "373.13", "0", "0", "374", "", "0.98", "0", "1", "0", "0", "1"]


def test_table() -> None:
    lines = console_table(build(BRATS, CASES)).splitlines()
    rows = {tuple(line.split()[:2]): line.split() for line in lines}
    assert lines[0].split() == ["region", "measure", "mean", "median", "95", "%", "interval", "cases"]
    assert rows["WT", "Dice"] == ["WT", "Dice", "0.900", "0.900", "0.900", "to", "0.900", "3"]
    assert rows["ET", "sensitivity"] == ["ET", "sensitivity", "-", "-", "-", "0"]
    assert "  ET: 1 in both, 2 in the label alone, 0 in the prediction alone" in lines
    assert "  TC: 0 in both, 0 in the label alone, 1 in the prediction alone" in lines
    assert not any(line.startswith("  WT:") and "both" in line for line in lines)
    assert rows["TC", "lesion"] == [
        "TC",
        "lesion",
        "HD95",
        "in",
        "mm",
        "250.00",
        "188.00",
        "188.00",
        "to",
        "374.00",
        "3",
    ]
    assert "  TC: 2 found, 2 missed, 2 invented" in lines
    assert any("whole volume" in line for line in lines)
    assert "empty regions: none" in console_table(build(BRATS, {"a": dict.fromkeys(("WT", "TC", "ET"), GOOD)}))
