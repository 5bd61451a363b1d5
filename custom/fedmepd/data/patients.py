"""Whose examination a folder holds, by the names of the folders."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from fedmepd.data.cases import PLAIN, Case

# 2021-01-02, 20210102, 2021-01, 02.01.2021, 01-31-2021, and what may follow such a date.
_DATE = re.compile(
    r"((19|20)\d\d[-_. ](0[1-9]|1[0-2])([-_. ]([0-2]\d|3[01]))?|(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])"
    r"|([0-2]\d|3[01])[-_. ](0[1-9]|1[0-2])[-_. ](19|20)\d\d"
    r"|(0[1-9]|1[0-2])[-_. ]([0-2]\d|3[01])[-_. ](19|20)\d\d)([^0-9].*)?"
)

# A session of a patient in BIDS, and a week of LUMIERE's.
_SESSION = re.compile(r"ses-\w+|week-\d+(-\d+)?", re.IGNORECASE)

# P001_20190301: a date or a session behind what may be the patient.
_OF_EXAMINATION = re.compile(rf"(?P<patient>.+?)[-_ ]({_DATE.pattern}|{_SESSION.pattern})", re.IGNORECASE)

# P001_scan1, P001_visit-2, P001_tp02, P001_baseline: how many of a patient's, in words.
_NUMBERED_WORD = re.compile(
    r"(?P<patient>.+?)[-_ ]((scan|visit|tp|time[-_ ]?(point)?|exam(ination)?|session|study|mr(i|t)?|month|day|year|v|fu"
    r"|follow[-_ ]?up)[-_ ]?\d+[a-z]?|baseline|follow[-_ ]?up|(pre|post)[-_ ]?op)",
    re.IGNORECASE,
)

# P001_1: the same without a word. A number of more digits is a patient's.
_NUMBERED = re.compile(r"(?P<patient>.+?)[-_ ]\d{1,2}")


def is_examination(name: str) -> bool:
    """Whether a name is a date or a session, and so that of an examination and of no patient."""
    return bool(_DATE.fullmatch(name) or _SESSION.fullmatch(name))


def date_as_patient(name: str, folder: Path) -> str:
    """Returns the doubt about a name that should be the patient of a folder; empty if it is no date and no session."""
    what = "a date" if _DATE.fullmatch(name) else "a session"
    return f"{name}, which should be the patient of {folder}, is {what}" if is_examination(name) else ""


def patient_of(above: list[str], folder: Path) -> tuple[str, str]:
    """Returns the patient of an examination, and why it may be another.

    Args:
        above: the folders between the data set and the examination's, the uppermost first.
        folder: the examination's.
    """
    # Whose folder holds one of a date, or a session as in BIDS, is the patient.
    levels = [*above, folder.name]
    dated = [place for place, name in enumerate(levels) if is_examination(name)]
    if dated and dated[0] > 0:
        return levels[dated[0] - 1], ""
    if doubt := date_as_patient(above[0], folder):
        return above[0], doubt
    if len(above) > 1:
        return above[0], f"it is not clear which of the folders {', '.join(above)} above {folder} is the patient"
    return above[0], ""


def with_doubts(cases: list[Case]) -> list[Case]:
    """Says of plain folders that are named alike but for a date, session or number that they may be of one patient."""
    names = [case.name for case in cases if case.layout == PLAIN]
    told = {name: match["patient"] for name in names if (match := _OF_EXAMINATION.fullmatch(name))}
    for pattern, doubts in ((_NUMBERED_WORD, _may_be_a_patient), (_NUMBERED, _is_numbered_among_others)):
        found = {name: match["patient"] for name in names if name not in told and (match := pattern.fullmatch(name))}
        counts = Counter(found.values())
        told |= {name: stem for name, stem in found.items() if doubts(stem, counts[stem] < len(names))}
    counts = Counter(told.values())
    return [
        replace(case, patient_doubt=f"all folders {patient}... may be examinations of one patient")
        if (patient := told.get(case.name, "")) and counts[patient] > 1
        else case
        for case in cases
    ]


def _may_be_a_patient(stem: str, others: bool) -> bool:
    """Of ``stem_scan1``: a stem without a digit that all folders have is a name of the data set."""
    return others or _has_digit(stem)


def _is_numbered_among_others(stem: str, others: bool) -> bool:
    """Of ``P001_1``: a patient if it has a number of its own, and not all folders have the same one."""
    return others and _has_digit(stem)


def _has_digit(stem: str) -> bool:
    return any(map(str.isdigit, stem))
