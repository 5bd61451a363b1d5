from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmepd.config import Settings
from fedmepd.evaluation.model_card import write_model_card
from tests.evaluation.runs import summary

ABOUT = {
    "owner": "site-3",
    "settings": Settings.make("phantom", {"rounds": 30, "seed": 4, "network": {"width": 16}}),
    "modalities": ("FLAIR", "T2"),
    "cases": {"train": 12, "validation": 3, "test": 5},
    "phantoms": False,
    "round_number": 25,
    "validation": {"round": 25, "mdsc": 0.7, "dice": {"WT": 0.8125, "TC": 0.7, "ET": 0.6}},
}


def card(folder: Path, **changes) -> str:
    write_model_card(folder / "model_best.pt", **ABOUT | changes)
    return (folder / "model_card.md").read_text()


def test_a_model_that_is_tested(tmp_path: Path) -> None:
    text = card(tmp_path, test=summary(0.5, 10.0, empty_et=2))
    for part in (
        "model of site-3",
        "Not a medical device",
        "| modalities | FLAIR T2 |",
        "12 for training, 3 for validation, 5 for testing |",
        "| round | 25 of 30, the best on validation |",
        "width 16",
        "| seed, version | 4, fedmepd ",
        "| Dice, 3 validation cases | 0.812 | 0.700 | 0.600 | 0.700 |",
        # Of summary(): ET has half the Dice and twice the distance.
        "| Dice, 5 test cases | 0.500 | 0.500 | 0.250 | 0.417 |",
        "| HD95 in mm, test cases | 10.0 | 10.0 | 20.0 | 13.3 |",
        "by BraTS's rule: ET 2.",
        "never seen T1ce, T1",
        "fedmepd predict --model model_best.pt",
        "0 background, 1 NCR/NET, 2 ED, 4 ET",
    ):
        assert part in text, part
    assert "phantom" not in text


def test_a_model_that_is_not_tested_yet(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert "Not tested yet" in text and "HD95" not in text and "Dice, 3 validation cases" in text


def test_a_model_without_any_scores(tmp_path: Path) -> None:
    text = card(tmp_path, validation=None, cases={"train": 12, "validation": 0, "test": 0})
    assert "Not measured" in text and "best on validation" not in text
    # There are cases, and the participant tells no score of so few.
    assert "Not told: its owner keeps the scores" in card(tmp_path, validation=None)


def test_phantoms_are_named(tmp_path: Path) -> None:
    text = card(tmp_path, phantoms=True, cohort="mild", modalities=("FLAIR", "T1ce", "T1", "T2"), owner="server")
    assert "for fusion training at the server (phantoms, cohort mild)" in text
    assert "Trained on phantoms" in text and "never seen" not in text and "of the fusion site" in text


@pytest.mark.parametrize(("site", "place"), [("", "the server"), ("site-7", "site-7")])
def test_where_the_cases_of_the_global_model_are(site: str, place: str, tmp_path: Path) -> None:
    """A hospital's own card counts its own cases alone."""
    settings = Settings.make("phantom", {"fusion": {"site": site}})
    counts = "12 for training, 3 for validation, 5 for testing"
    assert f"| cases | {counts}, for fusion training at {place} |" in card(tmp_path, settings=settings, owner="server")
    assert f"| cases | {counts} |" in card(tmp_path, settings=settings, owner="site-7")


@pytest.mark.parametrize("method", ["fedmepd", "local", "fedavg", "fusion_only"])
def test_every_method_is_described(method: str, tmp_path: Path) -> None:
    """The server's model has no filters of its own."""
    settings = Settings.make("phantom", {"method": method})
    rows = [re.search(r"\| method \| (.+) \|", card(tmp_path, settings=settings, owner=of)) for of in ("x", "server")]
    assert all(rows) and not re.search("trained here|filters trained", rows[1][1])
    assert (rows[0][1] == rows[1][1]) == (method == "fusion_only")
