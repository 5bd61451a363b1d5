"""How commands are started that a test interrupts."""

import contextlib
import signal
from collections.abc import Iterator

# Before a command: starts it as a script does with ``&``, so that it inherits that interrupts are ignored.
WITH_INTERRUPTS_IGNORED = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]


def heed_hangups() -> None:
    """In a new process, before its command: the end of a terminal counts, although `nohup` may run the tests."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextlib.contextmanager
def heeding_interrupts() -> Iterator[None]:
    """In this process: an interrupt is one, although the tests may have been started with ``&``."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
