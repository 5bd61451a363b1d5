from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.comparing.checking import check
from fedmepd.comparing.gathering import gather
from fedmepd.errors import FedMEPDError
from tests.comparing import runs


def pair(folder: Path, change=lambda run: None, seeds: tuple[int, ...] = (0,), **changes) -> Path:
    """Runs of fedmepd, and of local with a change."""
    for seed in seeds:
        runs.write(folder, runs.run("fedmepd", seed, runs.scores(seed)))
        run = runs.run("local", seed, runs.scores(seed), **changes)
        change(run)
        runs.write(folder, run)
    return folder


def test_runs_that_agree(tmp_path: Path) -> None:
    assert check(gather([pair(tmp_path, seeds=(0, 1))])) == []


def other_modalities(run: dict) -> None:
    run["sites"][1]["modalities"] = ["T2"]


def other_site(run: dict) -> None:
    run["sites"][1]["name"] = "site-7"


def other_counts(run: dict) -> None:
    run["sites"][2] |= {"test_cases": None, "test_fingerprint": None, "cases": {"train": 8, "validation": 2, "test": 5}}


@pytest.mark.parametrize(
    ("change", "changes", "said"),
    [
        (lambda run: None, {"cohort": "another"}, "site-1, seed 0: fedmepd and local were tested on different cases"),
        (lambda run: None, {"source": "folder"}, "the kind of data differs: phantom in"),
        (
            lambda run: None,
            {"settings": {"data": {"phantom": "hospitals"}}},
            "the cohort of phantoms differs: mild in",
        ),
        (lambda run: None, {"evaluation": 2}, "the version of the evaluation differs: 1 in"),
        (lambda run: None, {"evaluation": None}, "the version of the evaluation differs: 1 in"),
        (lambda run: None, {"settings": {"evaluation": {"overlap": 0.25}}}, "evaluation.overlap differs: 0.5 in"),
        (other_site, {}, "has the sites site-1, site-2, site-10"),
        (other_modalities, {}, "the list of modalities of site-2 differs: T1 in"),
        (other_counts, {}, "site-10, seed 0: 6 test cases with fedmepd, 5 with local"),
    ],
)
def test_runs_that_must_not_be_compared(tmp_path: Path, change, changes: dict, said: str) -> None:
    gathered = gather([pair(tmp_path, change, **changes)])
    with pytest.raises(FedMEPDError, match=".") as caught:
        check(gathered)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_other_sites_with_another_seed(tmp_path: Path) -> None:
    """The methods agree at each seed, and the seeds are of different federations."""
    for method in ("fedmepd", "local"):
        runs.write(tmp_path, runs.run(method, 0, runs.scores(0)))
        runs.write(tmp_path, runs.run(method, 1, runs.scores(1, sites=2)))
    with pytest.raises(
        FedMEPDError, match="has the sites site-1, site-2, site-10, .* has site-1, site-2: compare runs"
    ):
        check(gather([tmp_path]))


def without_cases(run: dict) -> None:
    for entry in (run["server"], *run["sites"]):
        entry |= {"test_cases": None, "test_fingerprint": None}


def test_without_fingerprints_the_split_must_be_set_alike(tmp_path: Path) -> None:
    [note] = check(gather([pair(tmp_path / "same", without_cases)]))
    assert note.startswith("site-1, site-2, site-10, fusion site: no fingerprint of the test cases.")
    changes = {"settings": {"data": {"split_seed": 5}}}
    with pytest.raises(FedMEPDError, match="data.split_seed differs: not stated in .*, 5 in"):
        check(gather([pair(tmp_path / "other", without_cases, **changes)]))


def test_fewer_training_cases_are_said(tmp_path: Path) -> None:
    """As in a sweep over the share of fusion data, whose test cases are the same."""

    def fewer(run: dict) -> None:
        run["server"]["cases"]["train"] = 4

    assert check(gather([pair(tmp_path, fewer)])) == [
        "fusion site has different numbers of training/validation cases (8/2: fedmepd; 4/2: local)"
    ]


def test_what_may_differ_is_said(tmp_path: Path) -> None:
    notes = check(
        gather(
            [
                pair(
                    tmp_path,
                    version="0.4.0",
                    precision="bfloat16",
                    hardware={"cpu": "another", "threads": 2, "device": "cuda"},
                    settings={"rounds": 8, "training": {"learning_rate": 0.001}},
                )
            ]
        )
    )
    assert notes == [
        "the version of fedmepd differs (0.3.0: fedmepd; 0.4.0: local): a method may have changed in between",
        "the precision differs (float32: fedmepd; bfloat16: local): last bits may differ",
        "the hardware differs (a processor 1 cpu: fedmepd; another 2 cuda: local): do not compare seconds and memory",
        "the setting rounds is not the same for all methods (4: fedmepd; 8: local)",
        "the setting training.learning_rate is not the same for all methods (0.004: fedmepd; 0.001: local)",
    ]
