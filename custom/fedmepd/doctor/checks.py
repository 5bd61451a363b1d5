"""The result of a check of a site: one line, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedmepd.errors import LONGEST_MESSAGE, plain_text

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Args:
        topic: what was looked at, a word or two.
        status: with an error the site cannot take part, or would fail later; a warning is worth a look before; a note
            is for information, or says that something could not be checked.
        kind: what was found, as docs/doctor.md lists it.
        text: the particulars; no names of patients or cases.
        advice: what to do; empty if there is nothing to do.
    """

    topic: str
    status: Literal["ok", "note", "warning", "error"]
    kind: str
    text: str = ""
    advice: str = ""

    def lines(self) -> list[str]:
        """For the terminal. What others wrote into a kit's files may be among it."""
        first = f"{self.status:<8} {self.topic:<12} {self.kind}{': ' if self.text else ''}{self.text}"
        lines = [first, *([f"{'':<21} -> {self.advice}"] if self.advice else [])]
        return [plain_text(line, LONGEST_MESSAGE) for line in lines]


@dataclass(frozen=True)
class Topic:
    """Makes the checks of one topic.

    Args:
        name: a word or two.
    """

    name: str

    def ok(self, kind: str, text: str = "") -> Check:
        """All is as it should be."""
        return Check(self.name, OK, kind, text)

    def note(self, kind: str, text: str = "", advice: str = "") -> Check:
        """A note."""
        return Check(self.name, NOTE, kind, text, advice)

    def warning(self, kind: str, text: str, advice: str) -> Check:
        """A warning."""
        return Check(self.name, WARNING, kind, text, advice)

    def error(self, kind: str, text: str, advice: str) -> Check:
        """An error."""
        return Check(self.name, ERROR, kind, text, advice)


def count(checks: Sequence[Check], status: str) -> int:
    """Returns how many checks came out so."""
    return sum(check.status == status for check in checks)
