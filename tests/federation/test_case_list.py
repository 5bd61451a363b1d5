"""The scores of every test case: what leaves the site, and what the run's results hold."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from statistics import fmean

import pytest

from fedmepd.data.cases import Case
from fedmepd.disclosure import OPEN
from fedmepd.evaluation.metrics import CaseScores
from fedmepd.federation.case_list import CaseList, fingerprint
from tests.tiny import COUNTS, settings

SCORES = [
    CaseScores({"WT": 0.5, "TC": 0.0}, {"WT": None, "TC": "label"}, {"WT": 3.0, "TC": 373.13}),
    CaseScores({"WT": 1.0, "TC": 0.25}, {"WT": "both", "TC": None}, {"WT": 0.0, "TC": 5.0}),
]


def watched(data, shares: str, places=(0, 1), withheld=None) -> dict:
    cases = CaseList(data, shares, OPEN)
    for place in places:
        cases.watch(place, None, None, SCORES[place])
    return cases.report(withheld)


def test_they_leave_where_the_site_agrees(tiny) -> None:
    data = tiny.data("site-1")
    report = watched(data, "share", places=(1, 0))
    assert report["cases"] == [
        {"dice": {"WT": 0.5, "TC": 0.0}, "hd95_mm": {"WT": 3.0, "TC": 373.13}, "empty": {"WT": None, "TC": "label"}},
        {"dice": {"WT": 1.0, "TC": 0.25}, "hd95_mm": {"WT": 0.0, "TC": 5.0}, "empty": {"WT": "both", "TC": None}},
    ]
    nothing = {"cases": None, "fingerprint": None}
    assert watched(data, "none") == nothing
    # Phantoms are nobody's.
    assert watched(replace(data, source="phantom"), "none") == report
    # A place without scores would not say whose score is whose.
    assert watched(data, "share", places=(1,)) == nothing
    assert CaseList(replace(data, test=[]), "share", OPEN).report() == nothing
    # Whoever has all of them has the mean, which is to stay.
    assert watched(data, "share", withheld="not allowed") == watched(data, "share", withheld="few cases") == nothing


def test_fingerprint_is_of_the_labels_alone_and_of_their_order(tiny, tmp_path) -> None:
    data = tiny.data("site-1")
    plain = [hashlib.sha256(case.label.read_bytes()).hexdigest() for case in data.test]
    assert fingerprint(data) == hashlib.sha256("".join(plain).encode()).hexdigest()
    moved = []
    for number, case in enumerate(data.test):
        label = tmp_path / f"renamed-{number}.nii.gz"
        label.write_bytes(case.label.read_bytes())
        moved.append(Case(f"renamed-{number}", {}, label, task=case.task))
    assert fingerprint(replace(data, test=moved)) == fingerprint(data)
    assert fingerprint(replace(data, test=data.test[::-1])) != fingerprint(data)
    assert fingerprint(replace(data, test=data.test[:1])) != fingerprint(data)


@pytest.mark.parametrize("method", ["fedmepd", "local"])
def test_results_hold_them_with_what_the_run_has_cost(method, finished, tiny) -> None:
    results = finished(method).results
    for entry, name in ((results["server"], "fusion"), *((site, site["name"]) for site in results["sites"])):
        cases = entry["test_cases"]
        assert len(cases) == COUNTS[name]["test"]
        for region in ("WT", "TC", "ET"):
            for key in ("dice", "hd95_mm"):
                assert fmean(case[key][region] for case in cases) == pytest.approx(entry["test"][key][region])
            assert sum(case["empty"][region] is not None for case in cases) == entry["test"]["empty"][region]
        assert entry["test_fingerprint"] == fingerprint(tiny.data(name))
        # Batches of two: a site of three cases has two steps in each of three rounds. The fusion site has a round 0.
        rounds = 4 if name == "fusion" else 3
        steps = rounds * {3: 2, 2: 1}[COUNTS[name]["train"]]
        assert (entry["work"]["steps"], entry["work"]["networks"]) == (steps, 1)
        assert entry["work"]["passes"] == pytest.approx(steps * 2 / COUNTS[name]["train"], abs=1e-3)
        assert entry["work"]["seconds"] > 0
        travels = name != "fusion" and method != "local"
        assert (entry["work"]["bytes_up"] > 0, entry["work"]["bytes_down"] > 0) == (travels, travels)
    assert results["server"]["work"]["peak_mib"] > 50
    assert results["hardware"]["device"] == "cpu" and results["hardware"]["threads"] == 1
    assert results["precision"] == "float32" and (results["trials"], results["evaluation"]) == (1, 1)
    assert results["source"] == "folder"


def test_a_split_of_its_own(tiny) -> None:
    """The split stays while the seed changes, and changes with its own."""

    def tests(**of) -> list[str]:
        return [case.name for case in tiny.data("site-1", settings(**of)).test]

    fixed = [tests(seed=seed, data={"split_seed": 5}) for seed in range(4)]
    assert all(names == fixed[0] for names in fixed)
    assert fixed[0] == tests(seed=5)
    assert any(tests(seed=seed) != fixed[0] for seed in range(4))
