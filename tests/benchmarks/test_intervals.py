from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import intervals


def test_the_spread_is_what_is_asked_for() -> None:
    spread = intervals.Spread("", 0.3, 0.0, 0.0)
    found = intervals.differences(np.random.default_rng(0), spread, 2000, "independent")
    assert found.shape == (2000, 8, 6) and found.std() == pytest.approx(0.3, rel=0.05)
    # A case is the same for all seeds of a fixed split, but for a part of its own.
    cases = intervals.Spread("", 0.0, 0.0, 0.2)
    fixed = intervals.differences(np.random.default_rng(0), cases, 2000, "fixed")
    assert fixed.std(axis=0).mean() == pytest.approx(0.1, rel=0.05)
    assert intervals.differences(np.random.default_rng(0), cases, 2000, "independent").std(axis=0).mean() == (
        pytest.approx(0.2, rel=0.05)
    )


def test_the_tables(capsys: pytest.CaptureFixture) -> None:
    assert intervals.main(["--repetitions", "3", "--draws", "20"], lambda folder: 1.25) == 0
    out = capsys.readouterr().out
    [row] = [line for line in out.splitlines() if line.startswith("| 5, independent")]
    assert "| t |" in row and "10,000 draws: 1.2 s of processor time" in out


def test_seconds(tmp_path: Path) -> None:
    assert 0 < intervals.seconds(tmp_path, methods=2, seeds=2, sites=2, cases=3) < 60
