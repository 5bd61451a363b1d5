"""What a site tells others about its cases."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fedmepd import methods
from fedmepd.disclosure import Allow, Disclosure, Told
from fedmepd.evaluation.metrics import CaseScores
from fedmepd.job_settings import make_settings

SCORES = {
    "dice": {"WT": 0.9, "TC": 0.6, "ET": 0.3},
    "mdsc": 0.6,
    "empty": {"WT": 0, "TC": 0, "ET": 1},
    "hd95_mm": {"WT": 1.0, "TC": 2.0, "ET": 3.0},
}


# Every case is another patient's.
CASES = [SimpleNamespace(name=f"c{number}", patient=f"p{number}") for number in range(100)]


def told(**cases: int) -> Told:
    """So many cases have each region, in label and segmentation."""
    count = Told(CASES)
    for region, number in cases.items():
        watch(count, region, *[None] * number)
    return count


def watch(count: Told, region: str, *empty: str | None) -> None:
    """Takes a case for each place where it lacks the region; None: it has the region in label and segmentation."""
    for place, one in enumerate(empty):
        count.watch(place, None, None, CaseScores({region: 0.5}, {region: one}))


def test_means_over_enough_cases_leave_as_they_are() -> None:
    assert Disclosure(3).scores("test_scores", SCORES, told(WT=3, TC=4, ET=3)) == (SCORES, None)


def test_the_score_of_two_patients_stays() -> None:
    assert Disclosure(3).scores("test_scores", SCORES, told(WT=2, TC=2, ET=2)) == (None, "few cases")


def test_a_region_that_one_label_tells_stays_and_so_does_its_part_of_the_mean() -> None:
    scores, withheld = Disclosure(3).scores("validation_scores", SCORES, told(WT=5, TC=5, ET=1))
    assert withheld is None
    # The mean of all three regions would tell the third.
    assert scores == {
        "dice": {"WT": 0.9, "TC": 0.6},
        "mdsc": pytest.approx(0.75),
        "empty": {"WT": 0, "TC": 0},
        "hd95_mm": {"WT": 1.0, "TC": 2.0},
    }


def test_what_the_site_does_not_allow_stays_however_many_cases_it_is_over() -> None:
    closed = Disclosure(1, Allow(test_scores=False, losses=False, durations=False, memory=False))
    assert closed.scores("test_scores", SCORES, told(WT=99, TC=99, ET=99)) == (None, "not allowed")
    assert closed.scores("validation_scores", SCORES, told(WT=9, TC=9, ET=9)) == (SCORES, None)
    assert closed.losses(CASES, {"total": 1.0}) == {}
    assert closed.seconds({"seconds": 1.5}) == {"seconds": None} and closed.memory(512.0) is None


def test_a_site_without_cases_has_nothing_to_withhold() -> None:
    assert Disclosure(3).scores("test_scores", None, told()) == (None, None)


@pytest.mark.parametrize(("cases", "leaves"), [(1, False), (2, False), (3, True)])
def test_mean_losses_over_few_cases_stay(cases: int, leaves: bool) -> None:
    assert Disclosure(3).losses(CASES[:cases], {"total": 1.5}) == ({"total": 1.5} if leaves else {})


def test_the_loss_of_a_step_is_that_of_a_patient() -> None:
    assert not Disclosure(3).tells_steps() and Disclosure(1).tells_steps()


def test_made_up_cases_are_nobodys() -> None:
    assert Disclosure(3).of_source("phantom").fewest == 1 and Disclosure(3).of_source("folder").fewest == 3
    # What the site refuses altogether it refuses with them too.
    assert not Disclosure(3, Allow(live=False)).of_source("phantom").allow.live


def test_told_counts_the_patients_of_each_region() -> None:
    count = Told(CASES)
    for place, regions in enumerate((("WT", "TC", "ET"), ("WT",), ("WT", "TC"))):
        count.watch(place, None, None, CaseScores(dict.fromkeys(regions, 0.5), dict.fromkeys(regions)))
    assert [count.fewest(region) for region in ("WT", "TC", "ET", "NCR")] == [3, 2, 1, 0]


def test_several_examinations_of_a_patient_are_one_patients() -> None:
    """Four cases: three of Smith, one of Miller. Miller alone has ET in both; in the label alone both have it."""
    count = Told([SimpleNamespace(name=str(n), patient=p) for n, p in enumerate(("Smith", "Smith", "Smith", "Miller"))])
    watch(count, "WT", None, None, None, None)
    watch(count, "TC", None, None, None)
    watch(count, "ET", "prediction", "prediction", "prediction", None)
    assert [count.fewest(region) for region in ("WT", "TC", "ET")] == [2, 1, 1]
    assert Disclosure(3).scores("test_scores", SCORES, count) == (None, "few cases")
    assert list(Disclosure(2).scores("test_scores", SCORES, count)[0]["dice"]) == ["WT"]


@pytest.mark.parametrize(
    ("empty", "fewest"),
    [
        # Of ten cases one has the region: their mean is 0.9 plus a tenth of its score.
        (["both"] * 9 + [None], 1),
        (["both"] * 7 + [None] * 3, 3),
        # One has it, and it was not found: missed lesions are that case's, and so is the score of 0.
        (["both"] * 9 + ["prediction"], 1),
        # Found in three of the four that have it: sums of lesions are over four, measured scores over three.
        (["both"] * 6 + ["prediction"] + [None] * 3, 3),
        # Invented in one of ten: those lesions are of that case.
        (["both"] * 9 + ["label"], 1),
        # Of ten that have it, the segmentation has it in two.
        (["prediction"] * 8 + [None] * 2, 2),
        # Nobody has it, and nothing was invented; or nothing was found: rules alone.
        (["both"] * 10, 10),
        (["prediction"] * 10, 10),
        (["prediction"] * 10 + ["both"] * 2, 10),
    ],
)
def test_cases_whose_scores_follow_from_rules_do_not_hide_the_others(empty, fewest) -> None:
    count = Told(CASES)
    watch(count, "ET", *empty)
    watch(count, "WT", *[None] * 10)
    assert count.fewest("ET") == fewest
    scores = {"dice": {"WT": 0.5, "ET": 0.9}, "mdsc": 0.7, "empty": {"WT": 0, "ET": 9}}
    left, _ = Disclosure(3).scores("test_scores", scores, count)
    assert list(left["dice"]) == list(left["empty"]) == (["WT", "ET"] if fewest >= 3 else ["WT"])
    assert left["mdsc"] == (0.7 if fewest >= 3 else 0.5)


@pytest.mark.parametrize(
    ("method", "section", "key"),
    [
        ("fedmepd", "calibration", "anchor_cases"),
        ("fedmema", "calibration", "anchor_cases"),
        ("fedamm", "prototypes", "cases"),
    ],
)
def test_no_job_lowers_the_floor_of_the_site(method: str, section: str, key: str) -> None:
    for asked, floor in ((1, 3), (3, 3), (7, 7)):
        settings = make_settings("paper", {"method": method, section: {key: asked}})
        raised = Disclosure(3).raise_floors(settings)
        assert getattr(getattr(raised, section), key) == floor
        assert raised.model_dump(exclude={section}) == settings.model_dump(exclude={section})


def test_every_smallest_number_of_patients_is_a_floor() -> None:
    """A method that has another setting of this kind has to name it."""
    for name in methods.names():
        kind = methods.find(name).settings
        found = {
            (section, key)
            for section, part in kind.model_fields.items()
            for key, field in getattr(part.annotation, "model_fields", {}).items()
            if "smallest number of" in (field.description or "") and "patients behind" in field.description
        }
        assert found == set(kind.fewest_cases), name
