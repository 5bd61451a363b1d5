"""Means over cases that differ in a few patients' do not both leave a site."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedmepd.disclosure import Allow, Disclosure, Told, reason_of
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation.metrics import CaseScores
from fedmepd.released_means import FILE_NAME, ReleasedMeans

# A case without its patient.
ORPHAN = {"patients": {}, "means": {"dice": [["0" * 32]]}}


def of(cases: Iterable[str]) -> dict[str, str]:
    """The patient of each case: of a1, a2 and a3 it is a."""
    return {case: case.rstrip("0123456789") for case in cases}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def test_the_difference_of_two_means_is_no_patients_score(file: Path) -> None:
    """4 times the mean of four less 3 times the mean of three of them is the fourth's score."""
    means = ReleasedMeans(file)
    assert means.admit({"dice": of("abcd")}, 3) is None
    assert means.admit({"dice": of("abc")}, 3) == "few" == means.admit({"dice": of("abcx")}, 3)
    # Three are in one and not in the other; the same patients again; another thing altogether.
    for behind in ({"dice": of("abefg")}, {"dice": of("dcba")}, {"loss": of("abc")}):
        assert means.admit(behind, 3) is None
    # What was kept back does not count: it is told from "abcd" by two, and from "abc" by none.
    assert means.admit({"dice": of("abc")}, 3) == "few"


def test_a_further_examination_is_not_told_by_a_difference(file: Path) -> None:
    """The patients are the same in both means; the difference is the examination a2 alone."""
    means = ReleasedMeans(file)
    assert means.admit({"dice": of(["a1", "b", "c", "d"])}, 3) is None
    assert ReleasedMeans(file).admit({"dice": of(["a1", "a2", "b", "c", "d"])}, 3) == "few"
    # Instead of the earlier one: the difference is that of two examinations of one patient.
    assert ReleasedMeans(file).admit({"dice": of(["a2", "b", "c", "d"])}, 3) == "few"
    # Six further examinations, of two patients; and three, of three.
    assert means.admit({"dice": of(["a1", "b", "c", "d", "a2", "a3", "a4", "b2", "b3", "b4"])}, 3) == "few"
    assert means.admit({"dice": of(["a1", "b", "c", "d", "a2", "b2", "c2"])}, 3) is None


def test_three_means_together_are_no_patients_score(file: Path) -> None:
    """Any two of them differ in four patients or more."""
    means = ReleasedMeans(file)
    assert means.admit({"dice": of("abc")}, 3) is None is means.admit({"dice": of("def")}, 3)
    assert ReleasedMeans(file).admit({"dice": of("abcdefx")}, 3) == "few"
    assert ReleasedMeans(file).admit({"dice": of("abcdefxyz")}, 3) is None


def test_what_left_without_a_minimum_counts_when_there_is_one(file: Path) -> None:
    assert ReleasedMeans(file).admit({"dice": of("abcdefg")}, 1) is None
    assert ReleasedMeans(file).admit({"dice": of("abcdef")}, 3) == "few"


def test_another_run_of_the_kit_knows_it_too(file: Path) -> None:
    ReleasedMeans(file).admit({"dice": of(["Smith", "Miller", "Brown", "Jones"])}, 3)
    assert ReleasedMeans(file).admit({"dice": of(["Smith", "Miller", "Brown"])}, 3) == "few"
    earlier, later = ReleasedMeans(file), ReleasedMeans(file)
    assert later.admit({"dice": of("uvwxyz")}, 3) is None
    assert earlier.admit({"dice": of("uvwxy")}, 3) == "few"
    assert "Smith" not in file.read_text()


@pytest.mark.parametrize("name", [os.fsdecode(b"M\xfcller"), "\ud800", "Mü"])
def test_a_name_need_not_be_text(file: Path, name: str) -> None:
    assert ReleasedMeans(file).admit({"dice": of([name, "a", "b", "c"])}, 3) is None
    assert ReleasedMeans(file).admit({"dice": of("abc")}, 3) == "few"


def test_what_could_not_be_written_has_not_left(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise FedMEPDError("the disk is full")

    means = ReleasedMeans(file)
    with monkeypatch.context() as patch:
        patch.setattr("fedmepd.released_means.write_json", full)
        with pytest.raises(FedMEPDError, match="full"):
            means.admit({"dice": of("abcd")}, 3)
    assert ReleasedMeans(file).admit({"dice": of("abc")}, 3) is None
    assert means.admit({"dice": of("abcd")}, 3) == "few"


def test_all_or_nothing(file: Path) -> None:
    """Where one of two means has to stay, the other is as if it had never been asked for."""
    means = ReleasedMeans(file)
    assert means.admit({"told": of("abcdef"), "label": of("abc")}, 3) is None
    assert means.admit({"told": of("ghijkl"), "label": of("abcg")}, 3) == "few"
    assert means.admit({"told": of("ghijk"), "label": of("ghi")}, 3) is None


def test_a_file_that_cannot_be_used_is_named(file: Path) -> None:
    for content in ("{", json.dumps({"means": {"dice": [["Smith"]]}}), json.dumps({"more": 1}), json.dumps(ORPHAN)):
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
        known.admit({"dice": of("abc")}, 3)


def test_whoever_takes_sets_apart_is_stopped(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmepd.released_means._MOST_SETS", 2)
    means = ReleasedMeans(file)
    verdicts = [means.admit({"dice": of(group)}, 3) for group in ("abc", "def", "ghi", "abc")]
    assert verdicts == [None, None, "unsure", None]


def scored(**regions: str) -> Told:
    """By patient, the regions that the label and the segmentation have; the first case's scores are first."""
    told = Told([SimpleNamespace(name=name, patient=name) for name in regions])
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


def test_the_reason_says_where_nobody_can_be_sure(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disclosure = Disclosure(3, Allow(), ReleasedMeans(file))
    for patients in ("aeghi", "bcef"):
        assert disclosure.scores("test_scores", SCORES, scored(**dict.fromkeys(patients, "WE"))) == (SCORES, None)
    monkeypatch.setattr("fedmepd.combined_means._MOST_CHOICES", 0)
    more = scored(**dict.fromkeys("bcdfhi", "WE"))
    assert disclosure.scores("test_scores", SCORES, more) == (None, "unsure")
    assert "too many earlier means" in reason_of("unsure")


def test_a_refusal_is_not_worked_out_again_in_every_round(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be sure, finding that out takes seconds. With other earlier means the answer is another."""
    means, asked = ReleasedMeans(file), []

    def slow(cases: Collection[str], known: list, *more: object) -> str | None:
        asked.append(len(known))
        return None if len(cases) == 5 else "unsure"

    monkeypatch.setattr("fedmepd.released_means.tells_of_few", slow)
    for _ in range(3):
        assert means.admit({"dice": of("abcd")}, 3) == "unsure" == means.admit({"dice": of("abce")}, 3)
    assert asked == [0, 0]
    assert ReleasedMeans(file).admit({"dice": of("abcde")}, 3) is None
    # That was another run of the kit.
    assert means.admit({"dice": of("abcd")}, 3) == "unsure" == means.admit({"dice": of("abcd")}, 3)
    assert asked == [0, 0, 0, 1]
    # Another patient of a case, or another number of patients, is another question.
    assert means.admit({"dice": of("abcd") | {"d": "a"}}, 3) == "unsure" == means.admit({"dice": of("abcd")}, 4)
    assert len(asked) == 6


def test_losses_over_almost_the_same_patients_stay(file: Path) -> None:
    disclosure = Disclosure(3, Allow(), ReleasedMeans(file))
    cases = [SimpleNamespace(name=name, patient=name) for name in "abcd"]
    assert disclosure.losses(cases, {"total": 1.0}) == {"total": 1.0} == disclosure.losses(cases, {"total": 1.0})
    assert disclosure.losses(cases[:3], {"total": 1.0}) == {}
