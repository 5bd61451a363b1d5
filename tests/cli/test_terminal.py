from __future__ import annotations

import argparse
import errno
import io
from pathlib import Path

import pytest

from fedmepd.cli.terminal import elsewhere_with, positive, progress_bar
from fedmepd.errors import FedMEPDError
from fedmepd.storage import cannot_write


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
