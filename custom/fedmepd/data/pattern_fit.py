"""Whether the patterns by which a user says which files are meant fit any file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fedmepd.data.cases import Case
from fedmepd.data.file_kinds import Pattern
from fedmepd.data.findings import Finding, warning
from fedmepd.data.volumes import is_nifti
from fedmepd.errors import DataError
from fedmepd.text_table import counted


class PatternFitsNothing(DataError):
    """A pattern fits no file at all, although there are images.

    Args:
        told: which one, and what files there are.
        remedy: what to do.
    """

    def __init__(self, told: str, remedy: str = "correct it, or leave it out"):
        super().__init__(f"{told}: {remedy}", "a pattern of file names fits no file")
        self.told = told


def fitting(folder: Path, files: Iterable[Path], patterns: Sequence[Pattern]) -> set[Pattern]:
    """Returns the patterns that fit any of a case's files.

    Args:
        folder: below which the patterns are.
        files: of the case.
        patterns: what the user says of them.
    """
    places = [file.relative_to(folder).as_posix() for file in files] if patterns else []
    return {pattern for pattern in patterns if any(fnmatchcase(place, pattern.glob) for place in places)}


def check_fit(
    patterns: Sequence[Pattern], fitted: Collection[Pattern], folder: Path, cases: Sequence[Case]
) -> Iterator[Finding]:
    """Warns of patterns that fit no file of some cases.

    Args:
        patterns: what the user says of the files.
        fitted: those that fit a file.
        folder: the data set.
        cases: that were found there.

    Raises:
        PatternFitsNothing: as it says.
    """
    for pattern in patterns:
        if pattern in fitted or (image := next(filter(is_nifti, folder.rglob("*")), None)) is None:
            continue
        raise PatternFitsNothing(
            f"--pattern '{pattern}' fits no file of a case in {folder}, where files are such as "
            f"{image.relative_to(folder)}"
        )
    for kind in dict.fromkeys(pattern.kind for pattern in patterns):
        without = [case.name for case in cases if kind not in {of for of, _, _ in case.volumes}]
        if without:
            said = " and ".join(f"--pattern '{one}'" for one in patterns if one.kind == kind)
            text = (
                f"{said} fits no file of {len(without)} of {counted(len(cases), 'case')}, such as {without[0]}: they "
                f"have no {kind}"
            )
            yield warning("pattern that fits no file of some cases", text)


def without_effect(what: str) -> DataError:
    """Returns the error of patterns where something else says which file is which."""
    return DataError(
        f"--pattern has no effect: {what} says which file is which modality. Leave the option out",
        public="a pattern of file names has no effect",
    )
