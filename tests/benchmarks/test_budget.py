from __future__ import annotations

import signal
import time

import pytest

from benchmarks.budget import OutOfTime, Part, broken_off_after, carry_out, reason_of


@pytest.fixture
def run():
    """Carries out parts on a clock that the parts move; returns the rows."""

    def carry(seconds, *parts):
        clock, rows = [100.0], []

        def work(takes, result):
            def measure():
                clock[0] += takes
                if isinstance(result, BaseException):
                    raise result
                return result

            return measure

        made = [Part({"part": name}, needs, work(takes, result)) for name, needs, takes, result in parts]
        carry_out(made, seconds, rows.append, lambda: clock[0])
        return rows

    return carry


def test_what_does_not_fit_is_left_out_and_what_still_fits_is_done(run) -> None:
    rows = run(60, ("a", 10, 45, {"x": 1}), ("b", 16, 1, {}), ("c", 15, 5, {"x": 3}), ("d", 0, 20, {}), ("e", 0, 0, {}))
    assert rows == [
        {"part": "a", "x": 1},
        {"part": "b", "left_out": "15 s left of about 16 s that it needs"},
        {"part": "c", "x": 3},
        {"part": "d"},
        {"part": "e", "left_out": "0 s left of about 0 s that it needs"},
    ]


def test_a_failure_is_a_row_and_not_the_end(run) -> None:
    rows = run(60, ("a", 0, 1, RuntimeError("no\n  kernel")), ("b", 0, 1, OutOfTime()), ("c", 0, 1, {"part": "x"}))
    assert rows == [
        {"part": "a", "failed": "RuntimeError: no kernel"},
        {"part": "b", "left_out": "had not ended after the 59 s that were left"},
        {"part": "c"},
    ]
    assert reason_of(MemoryError()) == "MemoryError"
    long = reason_of(ValueError("x" * 500))
    assert len(long) == 200 and long.endswith("...")


def test_an_interrupt_by_the_user_is_the_end(run) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(60, ("a", 0, 1, KeyboardInterrupt()))


def test_a_part_that_hangs_is_broken_off() -> None:
    """Also where a library takes every error for its own."""
    before = signal.getsignal(signal.SIGALRM)
    started = time.monotonic()
    with pytest.raises(OutOfTime), broken_off_after(0.05):
        try:
            time.sleep(60)
        except Exception as error:
            raise RuntimeError("internal") from error
    assert time.monotonic() - started < 30 and signal.getsignal(signal.SIGALRM) is before
    with broken_off_after(0.01):
        pass
    time.sleep(0.02)
