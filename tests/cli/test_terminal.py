from __future__ import annotations

import argparse
import io
import os
import sys

import pytest

from fedmepd.cli.terminal import outliving_readers, positive, progress_bar


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


def test_nothing_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    run(monkeypatch, log, 0.0)
    assert log.getvalue() == "next"


@pytest.mark.parametrize("text", ["0", "-3"])
def test_not_positive(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"expected 1 or more, got {text}"):
        positive(text)


def test_positive() -> None:
    assert positive("7") == 7


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_goes_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command goes on, its output goes nowhere, and nothing is left to be flushed at the end."""
    reader, writer = os.pipe()
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, name, pipe)
        with outliving_readers():
            stream = getattr(sys, name)
            print("one", file=stream, flush=True)
            assert os.read(reader, 10) == b"one\n"
            os.close(reader)
            for _ in range(3):
                print("two" * 100_000, file=stream, flush=True)
            stream.writelines(["three"])
            assert stream.fileno() == writer and stream.encoding == pipe.encoding
        assert getattr(sys, name) is pipe
