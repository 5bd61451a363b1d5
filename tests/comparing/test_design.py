from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.comparing.design import Design, design_of
from fedmepd.comparing.gathering import gather
from fedmepd.comparing.scores import collect
from tests.comparing import runs


def found(folder: Path, seeds: int, cases: bool = True, **changes) -> Design:
    for method in ("fedmepd", "local"):
        for seed in range(seeds):
            run = runs.run(method, seed, runs.scores(seed), **changes)
            if not cases:
                for entry in (run["server"], *run["sites"]):
                    entry |= {"test_cases": None, "test_fingerprint": None}
            runs.write(folder, run)
    gathered = gather([folder])
    return design_of(gathered, collect(gathered))


SPLIT = {"settings": {"data": {"split_seed": 3}}}


@pytest.mark.parametrize(
    ("seeds", "cases", "changes", "kind", "interval", "test"),
    [
        # Phantoms: a cohort for each seed.
        (5, True, {}, "independent", "t", "sign flips"),
        (4, True, {}, "independent", "bootstrap", "sign flips"),
        (3, False, {}, "independent", "t", "sign flips"),
        (1, True, {}, "fixed", "bootstrap", "Wilcoxon"),
        (1, False, {}, "independent", None, None),
        # Phantoms whose cohort is the same for all seeds are no replications.
        (5, True, {"cohort": "the same"}, "fixed", "bootstrap", "Wilcoxon"),
        # Patients.
        (5, True, {"source": "folder", "cohort": "the same"}, "fixed", "bootstrap", "Wilcoxon"),
        (5, True, {"source": "folder"}, "repeated", "corrected t", "corrected t"),
        (2, True, {"source": "folder"}, "repeated", "corrected t", "corrected t"),
        (5, False, {"source": "folder"}, "repeated", "corrected t", "corrected t"),
        (5, False, {"source": "folder", **SPLIT}, "fixed", "t", "sign flips"),
        # What does not say where its cases come from counts as patients.
        (5, True, {"source": None}, "repeated", "corrected t", "corrected t"),
    ],
)
def test_what_the_seeds_are(tmp_path: Path, seeds, cases, changes, kind, interval, test) -> None:
    design = found(tmp_path, seeds, cases, **changes)
    assert (design.kind, design.interval, design.test) == (kind, interval, test)
    assert design.phantom == (changes.get("source", "phantom") == "phantom")
    assert design.cohort == ("mild" if design.phantom else "")


def said(design: Design) -> str:
    return "\n".join(design.sentences(10_000, 2))


def test_limits_are_said() -> None:
    assert "with 5 seeds p cannot be below 0.062" in said(Design("independent", 5, True, True))
    assert "nothing here is about patients" in said(Design("independent", 5, True, True))
    assert "phantoms" not in said(Design("fixed", 5, True, False))
    assert "phantoms (cohort hospitals): nothing" in said(Design("independent", 5, True, True, "hospitals"))
    assert "such intervals can be too narrow" in said(Design("independent", 4, True, True))
    single = said(Design("fixed", 1, True, False))
    assert "a single seed" in single and "no claim is made with fewer than 3 seeds" in single
    assert "not about other patients" in said(Design("fixed", 5, False, False))
    assert "the runs overlap (data.split_seed fixes the split)" in said(Design("repeated", 3, True, False))
    alone = "\n".join(Design("independent", 5, True, True).sentences(10_000, 0))
    assert "p:" not in alone and "Holm" not in alone
    assert "there are no intervals" in said(Design("independent", 1, False, True))
