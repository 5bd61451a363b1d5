from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fedmepd.cli.terminal import (
    elsewhere_with,
    guarded_output,
    positive,
    progress_bar,
    progress_lines,
    refuse,
    showing_the_log,
)
from fedmepd.errors import FedMEPDError
from fedmepd.storage import cannot_write
from tests.signals import heed_hangups


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, delay: float) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar("reading", "case", delay) as progress:
        for number in range(1, 4):
            progress(number, 3)
        stream.write("next")


def test_the_bar_is_gone_before_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    run(monkeypatch, terminal, 0.0)
    shown = terminal.getvalue()
    assert "reading" in shown
    assert shown.rpartition("\r")[2] == "next"


def test_nothing_for_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    run(monkeypatch, terminal, 60.0)
    assert terminal.getvalue().strip() == "next"


def test_nothing_in_a_log_for_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    run(monkeypatch, log, 0.0)
    assert log.getvalue() == "next"


def test_lines_in_a_log(capsys: pytest.CaptureFixture) -> None:
    """One window every ten seconds: a line each half minute, the first after three windows, none at the end."""
    times = iter(range(0, 1000, 10))
    with progress_bar("case-1", "window", clock=lambda: next(times)) as progress:
        for number in range(1, 10):
            progress(number, 9)
    assert capsys.readouterr().err.splitlines() == [
        "case-1: window 3 of 9, about 01:00 left",
        "case-1: window 6 of 9, about 00:30 left",
    ]


def test_what_was_done_before_says_nothing_about_the_time_left(capsys: pytest.CaptureFixture) -> None:
    """Ninety of a hundred are there at the start; one more takes ten minutes, so nine more take ninety."""
    times = iter([0, 0, 600])
    report = progress_lines("runs", "round", 300.0, done_before=90, clock=lambda: next(times))
    report(90, 100)
    report(91, 100)
    assert capsys.readouterr().err == "runs: round 91 of 100, about 1:30:00 left\n"


def test_a_bar_on_a_terminal_without_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pseudo-terminal has no columns and no rows until somebody sets them."""
    reader, writer = os.openpty()
    terminal = Terminal()
    terminal.fileno = lambda: writer
    run(monkeypatch, terminal, 0.0)
    assert "reading" in terminal.getvalue()
    os.close(reader)
    os.close(writer)


def test_a_command_shows_the_log_of_the_package_alone(capsys: pytest.CaptureFixture) -> None:
    loops, other = logging.getLogger("fedmepd.networks.loops"), logging.getLogger("torch")
    with showing_the_log():
        loops.info("compiling %s", "loops")
        loops.debug("more")
        other.info("of another package")
    loops.info("after the command")
    assert capsys.readouterr() == ("", "compiling loops\n")


@pytest.mark.parametrize("text", ["0", "-3"])
def test_not_positive(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"expected 1 or more, got {text}"):
        positive(text)


def test_positive() -> None:
    assert positive("7") == 7


def test_the_option_that_names_another_folder() -> None:
    """Where rights or space are missing, and nowhere else."""

    def message(number: int) -> str:
        cause = OSError(number, "why")
        with pytest.raises(FedMEPDError) as error, elsewhere_with("--out"):
            raise cannot_write(Path("there"), cause) from cause
        return str(error.value)

    assert message(errno.EROFS).endswith("--out names another folder")
    assert message(errno.ENOSPC).endswith("--out names another folder")
    assert "--out" not in message(errno.EISDIR)
    with pytest.raises(FedMEPDError, match="^plain$"), elsewhere_with("--out"):
        raise FedMEPDError("plain")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_goes_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command goes on, its output goes nowhere, and nothing is left to be flushed at the end."""
    reader, writer = os.pipe()
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, name, pipe)
        with guarded_output():
            stream = getattr(sys, name)
            print("one", file=stream, flush=True)
            assert os.read(reader, 10) == b"one\n"
            os.close(reader)
            for _ in range(3):
                print("two" * 100_000, file=stream, flush=True)
            stream.writelines(["three"])
            assert stream.fileno() == writer and stream.encoding == pipe.encoding
        assert getattr(sys, name) is pipe


@pytest.mark.parametrize(("before", "after"), [([], "cleaned up"), (["nohup"], "went on")])
def test_the_end_of_a_terminal_is_an_interrupt(before: list[str], after: str) -> None:
    """Otherwise the processes that a command has started would go on without it. `nohup` asks for just that."""
    script = """if True:
        import os, signal
        from fedmepd.cli.terminal import interruptible
        with interruptible():
            try:
                os.kill(os.getpid(), signal.SIGHUP)
                print("went on")
            except KeyboardInterrupt:
                print("cleaned up")
    """
    command = [*before, sys.executable, "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed_hangups)
    assert (done.returncode, done.stdout.strip()) == (0, after)


def test_a_terminal_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed while a command cleans up goes nowhere, and raises no error."""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with guarded_output():
            os.close(ours)
            print("stopped", flush=True)
            print("stopped", flush=True)


def test_what_the_machine_refuses_is_a_line_and_everything_else_an_error(capsys: pytest.CaptureFixture) -> None:
    assert refuse("job.py", FedMEPDError("no such site")) == 2
    assert refuse("job.py", PermissionError(errno.EACCES, "Permission denied", "sites/a")) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "job.py: no such site"
    assert second.startswith("job.py: sites/a: Permission denied; give the user who runs this the right to it")
    with pytest.raises(OSError, match="is a directory"):
        refuse("job.py", OSError(errno.EISDIR, "is a directory"))


def test_what_is_printed_does_not_steer_the_terminal(capsys: pytest.CaptureFixture) -> None:
    """Names of files, sites and runs are others' texts; a bar on a terminal goes back to the start of its line."""
    with guarded_output():
        for stream in (sys.stdout, sys.stderr):
            print("é\ta\x1b[2J\x07\x9b\u202eb\rc", file=stream)
            stream.writelines(["d\x1b", "e\n"])
    shown = capsys.readouterr()
    assert shown.out == "é\ta\\x1b[2J\\x07\\x9b\\u202eb\\rc\nd\\x1be\n"
    assert shown.err == shown.out.replace("\\r", "\r")
