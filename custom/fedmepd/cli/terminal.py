"""What the commands share of a terminal: exit status, interrupts, closed pipes, warnings, progress, options' checks."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fedmepd.errors import FedMEPDError, SettingsError, is_of_the_machine, remedy

# Exit status of a data set or site that was looked at and has errors; of a job that failed; of a command that the user
# can put right; of one that the user has interrupted.
FAULTY, FAILED, REFUSED, INTERRUPTED = 1, 1, 2, 130


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Raises KeyboardInterrupt on SIGINT, SIGTERM and SIGHUP, so that a command can clean up before it ends.

    A command that a script starts with ``&`` inherits that SIGINT is ignored, and Python does not change that. SIGHUP,
    the end of a terminal or of a connection, stays ignored where it is (``nohup``). Only the main thread receives
    signals; in another thread nothing changes.

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

    numbers = [signal.SIGINT, signal.SIGTERM]
    # Not on Windows.
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        numbers.append(hang_up)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def guarded_output() -> Iterator[None]:
    """Lets a command finish its work when the reader of its output goes away, as ``head`` does.

    What it prints from then on goes nowhere; its files and its exit status are those of a complete command. Until then
    control characters are written as ``\\x1b``, because names of files, sites and runs are others' texts, which would
    steer the terminal.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Guarded(sys.stdout, _STEERING), _Guarded(sys.stderr, _STEERING_BUT_RETURN)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before


# Of a pipe without a reader; of a terminal that was closed.
_GONE = (errno.EPIPE, errno.EIO)


# Control characters but tabs and ends of lines, and those that turn the direction of writing. A progress bar goes back
# to the start of its line.
_STEERING_BUT_RETURN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STEERING = re.compile(rf"{_STEERING_BUT_RETURN.pattern}|\r")


class _Guarded:
    """A stream whose reader may go away, and that others' texts cannot steer.

    Args:
        stream: with the file descriptor of a pipe, or any other.
        escaped: the characters that are not written as they are.
    """

    def __init__(self, stream: Any, escaped: re.Pattern[str]):
        self._stream, self._escaped = stream, escaped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(self._escaped.sub(lambda found: repr(found[0])[1:-1], text))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if error.errno not in _GONE:
            raise error
        # What waits in buffers, here and in processes that inherit the descriptor, goes nowhere too.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def refuse(program: str, error: FedMEPDError | OSError) -> int:
    """Prints what a user can put right: bad input, missing rights, a full disk; returns the exit status.

    Args:
        program: what the line begins with.
        error: that ended the command.

    Raises:
        OSError: this one, if no user can put it right.
    """
    text = str(error)
    if isinstance(error, OSError):
        if not is_of_the_machine(error):
            raise error
        # A file without a name is one that a library keeps for a while.
        place = error.filename or f"a file in the folder for temporary files, {tempfile.gettempdir()} (TMPDIR)"
        text = f"{place}: {error.strerror}; {remedy(error)}"
    print(f"{program}: {text}", file=sys.stderr)
    return REFUSED


def warn(line: str) -> None:
    """Prints a warning that no result depends on."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def require_absent(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Refuses options that would have no effect.

    Args:
        options: of the command; None or false where an option is not given.
        names: of the options that have no effect.
        why: what follows the option in the message.

    Raises:
        SettingsError: one of them is given.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value is not False:
            raise SettingsError(f"--{name.replace('_', '-')}: {why}")


@contextmanager
def showing_the_log() -> Iterator[None]:
    """Prints on standard error what the package logs, as that it compiles loops; in FLARE's processes FLARE does so."""
    handler, logger = logging.StreamHandler(sys.stderr), logging.getLogger("fedmepd")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def elsewhere_with(option: str) -> Iterator[None]:
    """Adds to the error about a file that cannot be written which option names another folder."""
    try:
        yield
    except FedMEPDError as error:
        if isinstance(error.__cause__, OSError) and is_of_the_machine(error.__cause__):
            raise FedMEPDError(f"{error} {option} names another folder", error.public) from error.__cause__
        raise


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
        yield progress_lines(name, unit, every, clock=clock)
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


def progress_lines(
    name: str, unit: str, every: float, *, done_before: int = 0, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """Returns what prints now and then how far something is, where there is no terminal.

    Args:
        name: what is being done.
        unit: what is counted.
        every: seconds from one line to the next.
        done_before: the number that is done at the start: it says nothing about the time that is left.
        clock: tells the seconds.

    Returns:
        a function of the number done, and of all.
    """
    from tqdm import tqdm

    started = said = clock()

    def report(done: int, total: int) -> None:
        nonlocal said
        now = clock()
        if now - said >= every and done_before < done < total:
            said = now
            left = tqdm.format_interval((now - started) / (done - done_before) * (total - done))
            print(f"{name}: {unit} {done} of {total}, about {left} left", file=sys.stderr, flush=True)

    return report


def positive(text: str) -> int:
    """Reads an option's whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number
