"""What the commands share of a terminal: exit status, interrupts, warnings, progress, the check of an option."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Exit status of a data set or site that was looked at and has errors; of a command that the user can put right; of one
# that the user has interrupted.
FAULTY, REFUSED, INTERRUPTED = 1, 2, 130


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Raises KeyboardInterrupt on SIGINT and on SIGTERM, so that a command can clean up before it ends.

    A command that a script starts with ``&`` inherits that SIGINT is ignored, and Python does not change that. Only the
    main thread receives signals; in another thread nothing changes.

    Yields:
        an event that is set when a signal has arrived, for callers whose libraries catch the exception.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def warn(line: str) -> None:
    """Prints a warning that no result depends on."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


@contextmanager
def progress_bar(
    name: str, unit: str, delay: float = 1.0, *, every: float = 30.0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int], None]]:
    """Shows on standard error how far something is and how long it still takes; yields what is told the progress.

    On a terminal it is a bar, which goes as soon as all is done, so that what is printed next has the line to itself.
    Elsewhere, as in the log of a batch system, it is a line now and then.

    Args:
        name: what is being done.
        unit: what is counted.
        delay: seconds before the bar appears: for what is over sooner it would only flicker.
        every: seconds from one line to the next where there is no terminal.
        clock: tells the seconds.

    Yields:
        a function of the number done, and of all.
    """
    if not sys.stderr.isatty():
        yield _lines(name, unit, every, clock)
        return
    from tqdm import tqdm

    with tqdm(desc=name, unit=unit, leave=False, delay=delay, **_size()) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if done >= total:
                bar.close()

        yield report


def _size() -> dict[str, int]:
    """A size for a terminal that does not know its own, as in some containers, where tqdm would show nothing."""
    try:
        return {} if os.get_terminal_size(sys.stderr.fileno()).columns else {"ncols": 80, "nrows": 24}
    except OSError:
        return {}


def _lines(name: str, unit: str, every: float, clock: Callable[[], float]) -> Callable[[int, int], None]:
    from tqdm import tqdm

    started = said = clock()

    def report(done: int, total: int) -> None:
        nonlocal said
        now = clock()
        if now - said >= every and 0 < done < total:
            said = now
            left = tqdm.format_interval((now - started) / done * (total - done))
            print(f"{name}: {unit} {done} of {total}, about {left} left", file=sys.stderr, flush=True)

    return report


def positive(text: str) -> int:
    """Reads an option's whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number
