from __future__ import annotations

import copy
import json
import re
from dataclasses import replace

import pytest

from fedmepd.comparing.run import Work
from fedmepd.config import MOST_ROUNDS
from fedmepd.errors import UpdateRefused
from fedmepd.federation.exchange import SiteProfile
from fedmepd.federation.reports import (
    FusionReport,
    TestReport,
    TrainReport,
    Validation,
    check_cases,
    check_figures,
    check_profile,
    check_report,
    check_validated,
)
from fedmepd.flare.translation import MOST_BYTES
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.find import find_task
from tests.tiny import settings

DICE = {"WT": 0.5, "TC": 0.25, "ET": 0.0}
TRAIN = {
    "cases": 3,
    "losses": {"total": 5.5},
    "figures": {"pace": 0.5},
    "steps": 2,
    "train_seconds": 0.5,
    "validation_seconds": 0.125,
    "seconds": 0.75,
    "validation": {"round": 2, "dice": DICE, "mdsc": 0.25},
    "peak_mib": 512.5,
    "privacy": None,
}
CASE = {"dice": DICE, "hd95_mm": dict.fromkeys(DICE, 3.0), "empty": {"WT": None, "TC": "label", "ET": "both"}}
LESIONS = {"dice": 0.5, "hd95_mm": 187.0, "found": 1, "missed": 1, "invented": 0}
TEST = {
    "test": {
        "dice": DICE,
        "mdsc": 0.25,
        "empty": {"WT": 0, "TC": 0, "ET": 1},
        "hd95_mm": dict.fromkeys(DICE, 373.13),
        "nsd": DICE,
        "lesions": dict.fromkeys(DICE, LESIONS),
    },
    "withheld": None,
    "selected_round": 2,
    "each": {"cases": [CASE, CASE], "fingerprint": 64 * "a"},
}


FUSION = {"scores": TEST["test"], "each": TEST["each"]}


def test_taken() -> None:
    assert check_report("clinic", TrainReport, TRAIN, BRATS) == TRAIN
    assert check_report("clinic", TrainReport, TRAIN | {"validation": None}, BRATS)["validation"] is None
    # As they come from the wire.
    assert check_report("clinic", TestReport, json.loads(json.dumps(TEST)), BRATS) == TEST
    assert check_report("clinic", FusionReport, FUSION, BRATS)["scores"] == TEST["test"]
    silent = TEST | {"test": None, "each": {"cases": None, "fingerprint": None}}
    assert check_report("clinic", TestReport, silent, BRATS)["test"] is None
    # A site that keeps the scores of its cases to itself, and one whose version does not know them.
    nothing = {"cases": None, "fingerprint": None}
    for silent in (TEST | {"each": nothing}, {key: TEST[key] for key in ("test", "selected_round")}):
        assert check_report("clinic", TestReport, silent, BRATS)["each"] == nothing


def test_a_site_whose_labels_tell_some_regions_reports_these() -> None:
    whole = TRAIN | {"validation": {"round": 2, "dice": {"WT": 0.5}, "mdsc": 0.5}}
    assert check_report("clinic", TrainReport, whole, BRATS) == whole
    scores = {"dice": {"WT": 0.5}, "mdsc": 0.5, "empty": {"WT": 0}, "hd95_mm": {"WT": 3.0}}
    # Its version does not know of lesions.
    older = scores | {"nsd": None, "lesions": None}
    assert check_report("clinic", TestReport, TEST | {"test": scores}, BRATS)["test"] == older
    scores |= {"nsd": {"WT": 0.5}, "lesions": {"WT": LESIONS}}
    assert check_report("clinic", TestReport, TEST | {"test": scores}, BRATS)["test"] == scores


@pytest.mark.parametrize(
    ("kind", "report"), [(TestReport, TEST | {"test": None}), (FusionReport, FUSION | {"scores": None})]
)
def test_scores_of_cases_without_their_means(kind: type, report: dict) -> None:
    with pytest.raises(UpdateRefused, match="each.cases: there are scores of cases without their means"):
        check_report("clinic", kind, report, BRATS)


def test_the_largest_numbers_of_a_site_in_all_rounds_can_be_compared() -> None:
    """A comparison reads no sum above 2^53. One site's numbers would have cost all others the comparison."""
    largest = TRAIN | {"steps": 2**30, "seconds": 1e8}
    assert check_report("clinic", TrainReport, largest, BRATS) == largest
    sums = {
        "steps": 2**30 * MOST_ROUNDS,
        # With the largest batch, on one case.
        "passes": 2**30 * 64 * MOST_ROUNDS,
        "seconds": 1e8 * MOST_ROUNDS,
        "bytes_up": MOST_BYTES * MOST_ROUNDS,
        "bytes_down": MOST_BYTES * MOST_ROUNDS,
    }
    assert Work.model_validate(sums).steps == sums["steps"]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        (TrainReport, "cases", -1),
        (TrainReport, "cases", 16385),
        (TrainReport, "cases", 2.5),
        (TrainReport, "cases", True),
        (TrainReport, "cases", "3"),
        (TrainReport, "cases", None),
        (TrainReport, "losses", 1.0),
        (TrainReport, "losses.total", NAN),
        (TrainReport, "losses.total", "much"),
        (TrainReport, "figures.proximal", NAN),
        (TrainReport, "seconds", -1.0),
        (TrainReport, "seconds", INF),
        (TrainReport, "steps", -1),
        # Each fits into a number, and the sums of two sites or of many rounds do not.
        (TrainReport, "losses.total", 1.7e308),
        (TrainReport, "figures.pace", -1.7e308),
        (TrainReport, "seconds", 1.7e308),
        (TrainReport, "train_seconds", 1.7e308),
        (TrainReport, "peak_mib", 1.7e308),
        (TrainReport, "steps", 10**400),
        (TestReport, "selected_round", 10**400),
        (TestReport, "test.hd95_mm.ET", 1.7e308),
        (TestReport, "test.empty.ET", 10**400),
        (TestReport, "each.cases", [CASE | {"hd95_mm": dict.fromkeys(DICE, 1.7e308)}]),
        (TrainReport, "losses", {"\x1b[2J": 1.0}),
        (TrainReport, "figures", {"": 1.0}),
        # Else a site could write into the charts of the whole federation.
        (TrainReport, "figures", {"seconds/total": 1.0}),
        (TrainReport, "figures", {"a" * 65: 1.0}),
        (TrainReport, "validation", {}),
        (TrainReport, "validation.mdsc", NAN),
        (TrainReport, "validation.mdsc", 1.5),
        (TrainReport, "validation.dice", {}),
        (TrainReport, "validation.dice", {"TC": 0.25, "WT": 0.5}),
        (TrainReport, "validation.dice", DICE | {"liver": 1.0}),
        (TrainReport, "validation.dice.TC", -0.1),
        (TrainReport, "patient", "Smith"),
        (TestReport, "test.hd95_mm.ET", INF),
        (TestReport, "test.hd95_mm.ET", -1.0),
        (TestReport, "test.empty", {"WT": 0}),
        (TestReport, "test.hd95_mm", {"WT": 1.0, "TC": 1.0}),
        (TestReport, "test.dice", {"WT": 0.5}),
        (TestReport, "test.mdsc", None),
        (TestReport, "test.nsd.ET", 1.5),
        (TestReport, "test.nsd", {"WT": 0.5}),
        (TestReport, "test.lesions", {"WT": LESIONS}),
        (TestReport, "test.lesions", dict.fromkeys(DICE, LESIONS | {"found": -1})),
        (TestReport, "test.lesions", dict.fromkeys(DICE, LESIONS | {"sizes": [3]})),
        (TestReport, "test.lesions", dict.fromkeys(DICE, LESIONS | {"hd95_mm": INF})),
        (TestReport, "selected_round", -1),
        (TrainReport, "peak_mib", -1.0),
        (TestReport, "each.cases", None),
        (TestReport, "each.cases", [CASE | {"case": "Smith"}]),
        (TestReport, "each.cases", [CASE | {"dice": {"WT": 1.0}}]),
        (TestReport, "each.cases", [CASE | {"dice": DICE | {"WT": 1.5}}]),
        (TestReport, "each.cases", [CASE | {"hd95_mm": dict.fromkeys(DICE, INF)}]),
        (TestReport, "each.cases", [CASE | {"empty": dict.fromkeys(DICE, "Smith")}]),
        (TestReport, "each.fingerprint", None),
        (TestReport, "each.fingerprint", "Smith"),
        (TestReport, "each.patients", []),
        # No comparison reads the results of a run with these, also not what the other sites have found.
        (TrainReport, "steps", 2**30 + 1),
        (TrainReport, "validation.mdsc", 0.3),
        (TestReport, "test.mdsc", 0.3),
        (TestReport, "test.mdsc", 0.25 + 2e-6),
        (TestReport, "each.cases", []),
        (TestReport, "each.cases", [CASE, CASE | {"dice": DICE | {"WT": 0.75}}]),
        (FusionReport, "scores.mdsc", 0.3),
        (FusionReport, "each.cases", [CASE, CASE | {"dice": DICE | {"WT": 0.75}}]),
    ],
)
def test_refused(kind: type, place: str, value: object) -> None:
    report = copy.deepcopy({TrainReport: TRAIN, TestReport: TEST, FusionReport: FUSION}[kind])
    *outer, last = place.split(".")
    section = report
    for key in outer:
        section = section[key]
    section[last] = value
    with pytest.raises(UpdateRefused, match=f"report of clinic refused: (unknown key )?{place.split('.')[0]}"):
        check_report("clinic", kind, report, BRATS)


@pytest.mark.parametrize("key", sorted(TRAIN.keys() - {"peak_mib", "figures", "privacy"}))
def test_missing_key(key: str) -> None:
    with pytest.raises(UpdateRefused, match=f"report of clinic refused: {key} is missing"):
        check_report("clinic", TrainReport, {name: value for name, value in TRAIN.items() if name != key}, BRATS)


HONEST = {"total": 5.5, "segmentation": 1.0, "regions": 4.0, "auxiliary": 0.5}


@pytest.mark.parametrize(
    ("method", "losses", "figures"),
    [
        ("fedavg", HONEST, {}),
        ("fedavg", {}, {}),
        # Rounded to a little less than nothing.
        ("fedavg", HONEST | {"segmentation": -1e-7}, {}),
        ("fedprox", HONEST, {"proximal": 0.25}),
        ("ditto", HONEST, {"personal_loss": 5.0}),
        ("creamfl", HONEST, {"contrast": 3.0}),
        ("creamfl", HONEST, {"distillation": 3.0}),
        ("fedmsplit", HONEST, {"proximal": 0.0}),
        # One of four modalities is all that is behind.
        ("fedamm", HONEST | {"divergence": 200.0, "similarity": 0.5, "prototypes": 2.0}, {"relative_pace_T1ce": 4.0}),
    ],
)
def test_figures_of_honest_sites(method: str, losses: dict, figures: dict) -> None:
    check_figures("clinic", {"losses": losses, "figures": figures}, settings(method))


@pytest.mark.parametrize(
    ("method", "losses", "figures", "expected"),
    [
        ("fedavg", {}, {"validation_mdsc": 1e9}, "FedAvg has no figures.validation_mdsc: expected none"),
        ("fedavg", {}, {"total": 7.0}, "FedAvg has no figures.total: expected none"),
        ("fedavg", {}, {"seconds": -5.0}, "no figures.seconds"),
        ("fedavg", {}, {"proximal": 0.1}, "no figures.proximal"),
        ("fedavg", {"round": 1.0}, {}, "no losses.round: expected some of segmentation, regions, auxiliary, total"),
        ("fedavg", {"l000001": 1.0}, {}, "no losses.l000001"),
        ("fedavg", {"total": -1e9}, {}, "losses.total = -1e+09: expected -0.01 to 63"),
        ("fedavg", {"total": 64.0}, {}, "losses.total = 64: expected -0.01 to 63"),
        ("ditto", {}, {"personal_loss": 1e9}, "figures.personal_loss = 1e+09: expected -0.01 to 63"),
        ("fedprox", {}, {"proximal": -1.0}, "figures.proximal = -1: expected -0.01 to 1e+09"),
        ("fedprox", {}, {"direction": 1.0}, "no figures.direction: expected some of proximal"),
        ("fedamm", {}, {"relative_pace_T9": 1.0}, "no figures.relative_pace_T9"),
        ("fedamm", {}, {"relative_pace_T1": 4.1}, "figures.relative_pace_T1 = 4.1"),
        ("fedmsplit", {}, {"mixing_own_decoder": 1.0}, "no figures.mixing_own_decoder"),
        ("fedmepd", {}, {"weights_limited": 0.0}, "no figures.weights_limited"),
    ],
)
def test_figures_that_the_method_does_not_have(method: str, losses: dict, figures: dict, expected: str) -> None:
    """Under a name of its own choice, a site's number passed for the federation's score, or hid another one."""
    with pytest.raises(UpdateRefused, match=f"report of clinic refused: .*{re.escape(expected)}"):
        check_figures("clinic", {"losses": losses, "figures": figures}, settings(method))


def test_scores_of_as_many_cases_as_there_are() -> None:
    each = TEST["each"]
    assert check_cases("clinic", each, 2) == {"test_cases": [CASE, CASE], "test_fingerprint": 64 * "a"}
    for number in (1, 3):
        with pytest.raises(UpdateRefused, match=f"clinic refused: each.cases has scores of 2 cases: expected {number}"):
            check_cases("clinic", each, number)
    nothing = {"cases": None, "fingerprint": None}
    assert check_cases("clinic", nothing, 2) == {"test_cases": None, "test_fingerprint": None}


def test_scores_of_the_round_that_was_trained() -> None:
    check_validated("clinic", None, 2)
    check_validated("clinic", TRAIN["validation"], 2)
    with pytest.raises(UpdateRefused, match=r"validation\.round = 2: expected 3"):
        check_validated("clinic", TRAIN["validation"], 3)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "a\n", "", ".hidden", "a" * 65, "\x1b[2J"])
def test_names_that_could_be_no_files(name: str) -> None:
    """The server's files of a site begin with its name, whoever has given it."""
    profile = SiteProfile(name, ("T2",), {"train": 1, "validation": 0, "test": 0}, "folder")
    with pytest.raises(UpdateRefused, match="name") as refused:
        check_profile(name, profile.to_json(), BRATS)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("report", [None, [], "fine"])
def test_no_report(report: object) -> None:
    with pytest.raises(UpdateRefused, match="report of clinic refused: "):
        check_report("clinic", TrainReport, report, BRATS)


def test_regions_are_those_of_the_jobs_task() -> None:
    """The post-treatment task has ET, TC, WT and RC."""
    task = find_task("brats_post_treatment")
    scores = {"dice": dict.fromkeys(("ET", "TC", "WT", "RC"), 0.5), "mdsc": 0.5, "round": 1}
    assert check_report("clinic", Validation, scores, task)["dice"] == scores["dice"]
    for wrong in (BRATS, None):
        with pytest.raises(UpdateRefused, match="report of clinic refused: dice"):
            check_report("clinic", Validation, scores, wrong)


def test_modalities_are_those_of_the_jobs_task() -> None:
    task = replace(BRATS, modalities=("T1",), words={"T1": ("t1",)}, doubts=())
    counts = {"train": 1, "validation": 0, "test": 0}
    profile = SiteProfile("clinic", ("T2",), counts, "folder").to_json()
    assert check_profile("clinic", profile, BRATS).modalities == ("T2",)
    with pytest.raises(UpdateRefused, match="modalities: expected some of T1, each once and in this order"):
        check_profile("clinic", profile, task)
