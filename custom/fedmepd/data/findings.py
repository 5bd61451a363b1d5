"""What checks of a data set say: one sentence for the site, one kind for everybody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fedmepd.errors import DataError
from fedmepd.text_table import counted

ERROR, WARNING, NOTE = "error", "warning", "note"

MOST_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Args:
        severity: an error prevents the use of the case; a warning may point to an error; a note is for information.
        kind: what it is, without names of cases or files; may leave the site.
        text: what it is and what to do; names case and file, for the site alone.
    """

    severity: Literal["error", "warning", "note"]
    kind: str
    text: str


def error(kind: str, text: str) -> Finding:
    """Returns a finding that prevents the use of a case."""
    return Finding(ERROR, kind, text)


def warning(kind: str, text: str) -> Finding:
    """Returns a finding that somebody should look at."""
    return Finding(WARNING, kind, text)


def note(kind: str, text: str) -> Finding:
    """Returns a finding that is normal."""
    return Finding(NOTE, kind, text)


def count_kinds(findings: Iterable[Finding], severity: str) -> Counter[str]:
    """Returns how often each kind of one severity was found, in the order of first occurrence."""
    return Counter(finding.kind for finding in findings if finding.severity == severity)


def refuse(findings: Sequence[Finding]) -> None:
    """Does nothing if there is no error among the findings.

    Raises:
        DataError: there are errors; its message has the first 20 of their texts, its public form counts their kinds.
    """
    errors = [finding for finding in findings if finding.severity == ERROR]
    if not errors:
        return
    lines = [finding.text for finding in errors[:MOST_SHOWN]]
    if len(errors) > MOST_SHOWN:
        lines.append(f"and {len(errors) - MOST_SHOWN} more")
    if len(errors) > 1:
        lines.insert(0, f"{counted(len(errors), 'fault')} in the data:")
    counts = count_kinds(errors, ERROR)
    public = "the site's data cannot be used: " + ", ".join(f"{kind} ({count})" for kind, count in counts.items())
    raise DataError("\n  ".join(lines), public=public)
