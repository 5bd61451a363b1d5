from __future__ import annotations

import pytest

from benchmarks.training import summarise


def test_windows_last_steps_and_differences_by_hand() -> None:
    """60 steps: three windows of 20; the last 40 are the last two windows."""
    losses = {
        "straightforward": [[9.0] * 20 + [5.0] * 20 + [3.0] * 20, [7.0] * 20 + [5.0] * 20 + [5.0] * 20],
        "float32": [[9.0] * 20 + [5.0] * 40, [7.0] * 20 + [5.0] * 20 + [5.0] * 20],
        "bfloat16": [[9.0] * 60, [7.0] * 60],
    }
    rows, summary = summarise(losses)
    assert [row["first_step"] for row in rows] == [1, 21, 41]
    assert [row["straightforward"] for row in rows] == [8.0, 5.0, 4.0]
    assert [row["bfloat16"] for row in rows] == [8.0, 8.0, 8.0]
    assert summary["last"] == {"straightforward": [4.0, 5.0], "float32": [5.0, 5.0], "bfloat16": [9.0, 7.0]}
    # Of two numbers, the standard deviation is their distance over the square root of 2.
    assert summary["deviation"] == pytest.approx(0.5**0.5)
    assert summary["difference"] == {
        "float32": {"mean": 0.5, "deviation": pytest.approx(0.5**0.5)},
        "bfloat16": {"mean": 3.5, "deviation": pytest.approx(3 * 0.5**0.5)},
    }
