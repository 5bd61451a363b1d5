"""Parts of a benchmark in order of importance within a fixed time. What fails or does not fit becomes a row too."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_LONGEST_REASON = 200
# Seconds left in which nothing is begun any more.
_LEAST = 0.1


@dataclass(frozen=True)
class Part:
    """One row to measure.

    Attributes:
        about: what the row is about, such as ``{"part": "step", "crop": 80}``; part of the row whatever happens.
        needs: seconds that must be left to begin with it.
        measure: returns the rest of the row.
    """

    about: dict[str, Any]
    needs: float
    measure: Callable[[], dict[str, Any]]


class OutOfTime(BaseException):
    """A part was still at work when the time was over. Not an Exception, which a library might take for its own."""


def carry_out(
    parts: Sequence[Part], seconds: float, done: Callable[[dict[str, Any]], None], clock: Callable[[], float]
) -> None:
    """Measures parts one after the other.

    Args:
        parts: the most important first.
        seconds: that all of them may take together; a part that takes longer is broken off.
        done: called with every row: ``about`` and what was measured, or ``failed`` or ``left_out`` with the reason.
        clock: returns the time in seconds.
    """
    started = clock()
    for part in parts:
        left = seconds - (clock() - started)
        if left < max(part.needs, _LEAST):
            done(part.about | {"left_out": f"{max(left, 0):.0f} s left of about {part.needs:.0f} s that it needs"})
            continue
        try:
            with broken_off_after(left):
                measured = part.measure()
        except OutOfTime:
            done(part.about | {"left_out": f"had not ended after the {left:.0f} s that were left"})
        # Whatever a library throws on hardware that nobody has tried is what we want to know.
        except Exception as error:
            done(part.about | {"failed": reason_of(error)})
        else:
            done(measured | part.about)


@contextmanager
def broken_off_after(seconds: float) -> Iterator[None]:
    """Raises :class:`OutOfTime` inside after some seconds, as soon as Python is at work. In the main thread only."""

    def end(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reason_of(error: Exception) -> str:
    """Returns an error's type and the start of its message as one line."""
    line = " ".join(str(error).split())
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."
