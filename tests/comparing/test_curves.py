from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedmepd.comparing.curves import area, common_budget, curve
from fedmepd.comparing.run import RunFile, read
from tests.comparing import runs, slow


def file(folder: Path, seed: int, scores: list[float], **curves) -> RunFile:
    content = runs.run("fedmepd", seed, runs.scores(seed))
    return read(runs.write(folder, content, runs.history(scores, **curves)))


def test_a_curve(tmp_path: Path) -> None:
    """Three sites and the fusion site, 10 steps and 1000 bytes each a round, 10 steps of the fusion site in round 0."""
    found = curve([file(tmp_path, 0, [0.2, 0.4]), file(tmp_path, 1, [0.4, 0.8])])
    assert found.rounds.tolist() == [1, 2]
    assert found.spent["steps"].tolist() == [[50, 90]] * 2 and found.spent["bytes"].tolist() == [[4000, 8000]] * 2
    assert found.scores == pytest.approx(np.array([[0.2, 0.4], [0.4, 0.8]]))
    # Each seed by itself: nothing for 50 of 100 steps, the first score for 40, the second for 10.
    assert found.areas("steps", 100) == pytest.approx([0.12, 0.24])


def test_rounds_that_not_every_site_has_validated(tmp_path: Path) -> None:
    history = runs.history([0.2, 0.4, 0.6])
    history["site-2"] = history["site-2"] | {"validation": history["site-2"]["validation"][:1]}
    content = runs.run("fedmepd", 0, runs.scores(0))
    found = curve([read(runs.write(tmp_path, content, history))])
    assert found.rounds.tolist() == [1] and found.scores == pytest.approx(np.array([[0.2]]))


def test_without_steps_there_is_no_curve(tmp_path: Path) -> None:
    history = runs.history([0.2, 0.4])
    for of_one in history.values():
        of_one["rounds"] = [{"round": each["round"]} for each in of_one["rounds"]]
    content = runs.run("fedmepd", 0, runs.scores(0))
    assert curve([read(runs.write(tmp_path, content, history))]) is None
    assert curve([read(runs.write(tmp_path / "none", content))]) is None


def test_area_by_hand() -> None:
    """Nothing until 10, 0.5 until 20, then 0.5 still since 0.3 is worse, 0.8 from 30 to 40: (0 + 5 + 5 + 8) / 40."""
    spent, scores = np.array([10.0, 20.0, 30.0]), np.array([0.5, 0.3, 0.8])
    assert area(spent, scores, 40) == pytest.approx(18 / 40)
    # What comes later than the budget does not count.
    assert area(spent, scores, 25) == pytest.approx(7.5 / 25)
    assert area(spent, scores, 5) == 0


def test_a_budget_that_ends_before_the_first_validation_says_nothing(tmp_path: Path) -> None:
    """Each seed spends 50 steps up to its first validation; at 50 nothing of the budget is left to average over."""
    found = curve([file(tmp_path, seed, [0.2, 0.4]) for seed in (0, 1)])
    assert found.areas("steps", 51) == pytest.approx([0.2 / 51] * 2) and not found.why_no_area("steps", 51)
    late = "the budget is spent before, or at, its first validation"
    for up_to in (50, 10):
        assert found.areas("steps", up_to) is None and found.why_no_area("steps", up_to) == late
    # One seed is enough: a mean with it would be of fewer seeds than the table says.
    slow_seed = file(tmp_path, 2, [0.2, 0.4], steps=30)
    assert curve([file(tmp_path, 0, [0.2, 0.4]), slow_seed]).why_no_area("steps", 100) == late
    silent = curve([file(tmp_path, 3, [0.1, 0.2], bytes_each=0)])
    assert silent.why_no_area("bytes", 100) == "it sends nothing" and not silent.why_no_area("steps", 51)


def test_area_against_a_slow_one() -> None:
    random = np.random.default_rng(0)
    spent, scores = np.sort(random.uniform(0, 100, 12)), random.uniform(size=12)
    for budget in (30.0, 80.0, 150.0):
        assert area(spent, scores, budget) == pytest.approx(slow.area(spent, scores, budget, 20_000), abs=1e-3)


def test_the_common_budget(tmp_path: Path) -> None:
    short, long = curve([file(tmp_path, 0, [0.1])]), curve([file(tmp_path, 1, [0.1, 0.2])])
    silent = curve([file(tmp_path, 2, [0.1, 0.2], bytes_each=0)])
    assert common_budget([short, long, None], "steps") == 50
    # A method that sends nothing, such as local, does not shorten the others' curves.
    assert common_budget([short, silent], "bytes") == 4000
    assert common_budget([silent], "bytes") == 0 and silent.areas("bytes", 100) is None
