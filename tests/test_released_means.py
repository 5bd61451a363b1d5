"""Means over patients that differ in a few do not both leave a site."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedmepd.disclosure import Allow, Disclosure, Told
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation.metrics import CaseScores
from fedmepd.released_means import FILE_NAME, ReleasedMeans


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def test_the_difference_of_two_means_is_no_patients_score(file: Path) -> None:
    """4 times the mean of four less 3 times the mean of three of them is the fourth's score."""
    means = ReleasedMeans(file)
    assert means.admit({"dice": "abcd"}, 3)
    assert not means.admit({"dice": "abc"}, 3) and not means.admit({"dice": "abcx"}, 3)
    # Three are in one and not in the other; the same patients again; another thing altogether.
    assert means.admit({"dice": "abefg"}, 3) and means.admit({"dice": "dcba"}, 3) and means.admit({"loss": "abc"}, 3)
    # What was kept back does not count: it is told from "abcd" by two, and from "abc" by none.
    assert not means.admit({"dice": "abc"}, 3) and means.admit({"dice": "abc"}, 1)


def test_three_means_together_are_no_patients_score(file: Path) -> None:
    """Any two of them differ in four patients or more."""
    means = ReleasedMeans(file)
    assert means.admit({"dice": "abc"}, 3) and means.admit({"dice": "def"}, 3)
    assert not ReleasedMeans(file).admit({"dice": "abcdefx"}, 3)
    assert ReleasedMeans(file).admit({"dice": "abcdefxyz"}, 3)


def test_another_run_of_the_kit_knows_it_too(file: Path) -> None:
    ReleasedMeans(file).admit({"dice": ["Smith", "Miller", "Brown", "Jones"]}, 3)
    assert not ReleasedMeans(file).admit({"dice": ["Smith", "Miller", "Brown"]}, 3)
    earlier, later = ReleasedMeans(file), ReleasedMeans(file)
    assert later.admit({"dice": list("uvwxyz")}, 3) and not earlier.admit({"dice": list("uvwxy")}, 3)
    assert "Smith" not in file.read_text()


def test_what_could_not_be_written_has_not_left(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise FedMEPDError("the disk is full")

    means = ReleasedMeans(file)
    with monkeypatch.context() as patch:
        patch.setattr("fedmepd.released_means.write_json", full)
        with pytest.raises(FedMEPDError, match="full"):
            means.admit({"dice": "abcd"}, 3)
    assert ReleasedMeans(file).admit({"dice": "abc"}, 3) and not means.admit({"dice": "abcd"}, 3)


def test_all_or_nothing(file: Path) -> None:
    """Where one of two means has to stay, the other is as if it had never been asked for."""
    means = ReleasedMeans(file)
    assert means.admit({"told": "abcdef", "label": "abc"}, 3)
    assert not means.admit({"told": "ghijkl", "label": "abcg"}, 3)
    assert means.admit({"told": "ghijk", "label": "ghi"}, 3)


def test_a_file_that_cannot_be_used_is_named(file: Path) -> None:
    for content in ("{", json.dumps({"means": {"dice": [["Smith"]]}}), json.dumps({"more": 1})):
        file.write_text(content)
        with pytest.raises(FedMEPDError, match=FILE_NAME) as caught:
            ReleasedMeans(file)
        assert "restore it from a backup" in str(caught.value)


def test_what_is_no_file_does_not_count_as_missing(file: Path, tmp_path: Path) -> None:
    """As where the kit's disk was moved, and a link to the file leads nowhere."""
    file.symlink_to(tmp_path / "gone")
    with pytest.raises(FedMEPDError, match="a link that leads nowhere: expected a file; restore it"):
        ReleasedMeans(file)
    file.unlink()
    known = ReleasedMeans(file)
    file.mkdir()
    with pytest.raises(FedMEPDError, match="is a folder: expected a file"):
        known.admit({"dice": "abc"}, 3)


def test_whoever_takes_sets_apart_is_stopped(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmepd.released_means._MOST_SETS", 2)
    means = ReleasedMeans(file)
    assert [means.admit({"dice": [f"{group}{n}" for n in range(3)]}, 3) for group in "abc"] == [True, True, False]
    assert means.admit({"dice": ["a0", "a1", "a2"]}, 3)


def scored(**regions: str) -> Told:
    """By patient, the regions that the label and the segmentation have; the first case's scores are first."""
    told = Told([SimpleNamespace(patient=name) for name in regions])
    for place, has in enumerate(regions.values()):
        empty = {region: None if region[0] in has else "both" for region in ("WT", "ET")}
        told.watch(place, None, None, CaseScores(dict.fromkeys(empty, 0.5), empty))
    return told


SCORES = {"dice": {"WT": 0.8, "ET": 0.4}, "mdsc": 0.6}


def test_scores_over_almost_the_same_patients_stay(file: Path) -> None:
    disclosure = Disclosure(3, Allow(), ReleasedMeans(file))
    four = dict.fromkeys("abcd", "WE")
    assert disclosure.scores("test_scores", SCORES, scored(**four)) == (SCORES, None)
    three = {name: four[name] for name in "abc"}
    assert disclosure.scores("validation_scores", SCORES, scored(**three)) == (None, "few differ")
    # The same again, as in the next round.
    assert disclosure.scores("validation_scores", SCORES, scored(**four)) == (SCORES, None)


def test_patients_without_a_region_hide_nobody_who_has_it(file: Path) -> None:
    """Three patients are added, of whom one has ET: the difference of the two means of ET would be that one's."""
    disclosure = Disclosure(3, Allow(), ReleasedMeans(file))
    first = dict.fromkeys("abcd", "WE")
    assert disclosure.scores("test_scores", SCORES, scored(**first)) == (SCORES, None)
    more = first | {"x": "WE", "y": "W", "z": "W"}
    assert disclosure.scores("test_scores", SCORES, scored(**more)) == ({"dice": {"WT": 0.8}, "mdsc": 0.8}, None)


def test_losses_over_almost_the_same_patients_stay(file: Path) -> None:
    disclosure = Disclosure(3, Allow(), ReleasedMeans(file))
    cases = [SimpleNamespace(patient=name) for name in "abcd"]
    assert disclosure.losses(cases, {"total": 1.0}) == {"total": 1.0} == disclosure.losses(cases, {"total": 1.0})
    assert disclosure.losses(cases[:3], {"total": 1.0}) == {}
