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


# Options that say how data are read, which no run has.
_NOT_OF_A_RUN = ("--follow-links", "--labels", "--pattern")


def advice_for_a_run(texts: Sequence[str]) -> str:
    """Returns how to say for a run what sentences say by options; empty if they name none that a run lacks.

    It is the one advice about these options: before a run, in it, and in a check of the folder that it reads.

    Args:
        texts: of findings, or of a command.
    """
    named = [option for option in _NOT_OF_A_RUN if any(option in text for text in texts)]
    if not named:
        return ""
    return (
        f"a run has no option {' or '.join(named)}: give it to `fedmepd data init` with the site's folder; the "
        "manifest keeps it for all runs"
    )


def refuse_for_a_run(findings: Sequence[Finding]) -> None:
    """Refuses errors like :func:`refuse`, where data are read for a run.

    Raises:
        DataError: there are errors; see there.
    """
    try:
        refuse(findings)
    except DataError as problem:
        advice = advice_for_a_run([found.text for found in findings if found.severity == ERROR])
        if not advice:
            raise
        if problem.lines:
            raise DataError(problem.message, problem.public, lines=(*problem.lines, advice)) from problem
        raise DataError(f"{problem}; {advice}", problem.public) from problem


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
    raise DataError(lines[0], public, lines=lines[1:])
