"""Scores of labels that leave voxels out, or that do not tell some classes apart."""

from __future__ import annotations

import numpy as np
import pytest

from fedmepd.evaluation.measures import measure_case
from fedmepd.evaluation.metrics import case_scores, dice_only, summarise
from fedmepd.evaluation.scores import build, console_table
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.labels import IGNORE

SPACING = (1.0, 1.0, 1.0)
WHOLE = ((0,), (1, 2, 3))


def volume(**boxes):
    """A volume of 8 x 8 x 8 with classes in slices along the first axis."""
    made = np.zeros((8, 8, 8), dtype=np.uint8)
    for name, (start, end) in boxes.items():
        made[start:end] = {"ncr": 1, "ed": 2, "et": 3, "left_out": IGNORE}[name]
    return made


def test_a_region_is_scored_if_its_label_tells_it():
    prediction, label = volume(ed=(2, 4), et=(4, 6)), volume(ncr=(3, 6))
    scores = case_scores(BRATS, prediction, label, SPACING, WHOLE)
    # 3 of 4 and 3 slices in common.
    assert (
        scores.dice == {"WT": pytest.approx(6 / 7)} and scores.hd95_mm == {"WT": 1.0} and scores.empty == {"WT": None}
    )
    assert dice_only(BRATS, prediction, label, WHOLE).dice == scores.dice
    [(region, measures)] = measure_case(BRATS, prediction, label, SPACING, WHOLE).items()
    assert region == "WT" and measures.dice == pytest.approx(6 / 7) and measures.sensitivity == 1
    assert (measures.label_ml, measures.prediction_ml) == (pytest.approx(0.192), pytest.approx(0.256))


def test_ignored_voxels_count_for_neither():
    prediction, label = volume(et=(2, 6)), volume(et=(4, 6), left_out=(0, 3))
    # Slice 2 is left out: 3 slices predicted, 2 true, 2 in common.
    assert dice_only(BRATS, prediction, label).dice["ET"] == pytest.approx(4 / 5)
    assert measure_case(BRATS, prediction, label, SPACING)["ET"].dice == pytest.approx(4 / 5)


def test_means_count_what_is_known():
    full = case_scores(BRATS, volume(et=(2, 4)), volume(et=(2, 4)), SPACING)
    whole = case_scores(BRATS, volume(ed=(2, 4)), volume(ncr=(4, 6)), SPACING, WHOLE)
    summary = summarise([full, whole])
    assert summary["dice"] == {"WT": 0.5, "TC": 1, "ET": 1} and summary["mdsc"] == pytest.approx(2.5 / 3)
    assert list(summary["hd95_mm"]) == ["WT", "TC", "ET"] and summary["hd95_mm"]["TC"] == 0
    part = case_scores(BRATS, volume(et=(2, 4)), volume(et=(2, 4)), SPACING, ((0, 1, 2), (3,)))
    # In the order of the task, whatever the first case tells.
    assert list(summarise([part, whole], BRATS.regions)["dice"]) == ["WT", "ET"]
    nothing = case_scores(BRATS, volume(), volume(), SPACING, ((0, 1, 2, 3),))
    assert nothing.dice == {} and summarise([nothing]) is None


def test_the_report_says_what_is_not_told():
    cases = {
        "a": measure_case(BRATS, volume(et=(2, 4)), volume(et=(2, 4)), SPACING),
        "b": measure_case(BRATS, volume(ed=(2, 4)), volume(ncr=(2, 4)), SPACING, WHOLE),
    }
    report = build(BRATS, cases)
    assert [report["summary"]["regions"][region]["dice"]["cases"] for region in ("WT", "TC", "ET")] == [2, 1, 1]
    text = console_table(report)
    assert "cases whose labels do not tell a region, and are in neither its scores nor mDSC: TC 1, ET 1" in text


def test_ignored_voxels_are_in_no_volume():
    """Slices of 64 voxels of 1 mm^3."""
    prediction, label = volume(et=(2, 6)), volume(et=(4, 6), left_out=(0, 3))
    measures = measure_case(BRATS, prediction, label, SPACING)["ET"]
    assert (measures.label_ml, measures.prediction_ml) == (pytest.approx(0.128), pytest.approx(0.192))
    # All that is predicted is left out.
    report = build(BRATS, {"a": measure_case(BRATS, volume(et=(0, 2)), volume(left_out=(0, 3)), SPACING)})
    assert report["summary"]["regions"]["ET"]["empty"] == {"both": 1, "label": 0, "prediction": 0}


def test_the_mean_of_all_regions_is_of_cases_that_tell_all():
    cases = {
        "a": measure_case(BRATS, volume(et=(2, 4)), volume(et=(3, 5)), SPACING),
        "b": measure_case(BRATS, volume(ed=(2, 4)), volume(ncr=(2, 4)), SPACING, WHOLE),
    }
    mdsc = build(BRATS, cases)["summary"]["mdsc"]
    assert mdsc["cases"] == 1 and mdsc["mean"] == pytest.approx(0.5)
