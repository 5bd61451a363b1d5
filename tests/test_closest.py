"""What is proposed for a name that is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.closest import closest, did_you_mean, like_path, one_of

RUNS = ["brats-fedavg-0-1", "brats-fedmepd-0-1", "brats-fedmepd-0-2", "prostate-local-3-1"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("fedavg", ["fedavg"]),
        ("FEDAVGG", ["fedavg"]),
        ("fed_avg", ["fedavg"]),
        ("nothing", []),
        ("", []),
        # What a file may hold in place of a name.
        (-1, []),
        (None, []),
        (["fedavg"], []),
    ],
)
def test_the_name_that_is_like_it(name: object, found: list[str]) -> None:
    assert closest(name, ["fedavg", "local", "ditto"]) == found


def test_names_in_capitals_are_given_back_as_they_are() -> None:
    assert closest("flir", ["FLAIR", "T1ce"]) == ["FLAIR"]


def test_no_more_than_three() -> None:
    assert len(closest("site-1", [f"site-{number}" for number in range(2, 9)])) == 3


@pytest.mark.parametrize("word", ["local,fedavg", "local, fedavg", " local,fedavg,"])
def test_several_names_in_one_word(word: str) -> None:
    assert did_you_mean(word, ["fedavg", "local"]) == "; did you mean local and fedavg, each by itself?"
    # Names of which one is not known, and a name that has a comma.
    assert "each by itself" not in did_you_mean(f"{word},x", ["fedavg", "local"])
    assert did_you_mean("a,b", ["a,c"]) == "; did you mean a,c?"


def test_the_end_of_a_sentence() -> None:
    assert did_you_mean("brats-fedmepd-0-3", RUNS).startswith("; did you mean brats-fedmepd-0-")
    assert did_you_mean("x", RUNS) == ""
    assert one_of("x", ["a", "b"]) == "expected one of a, b"


def test_a_path_of_which_a_part_is_misspelt(tmp_path: Path) -> None:
    (tmp_path / "workspace" / "run-1").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    assert like_path(tmp_path / "workspace" / "run1") == f"; did you mean {tmp_path}/workspace/run-1?"
    assert like_path(tmp_path / "worksapce" / "run-1") == f"; did you mean {tmp_path}/workspace?"
    assert like_path(tmp_path / "quite another") == ""
    assert like_path(Path("/")) == ""
