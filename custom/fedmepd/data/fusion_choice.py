"""Which patients of a hospital's data set are for fusion training, and which for the site's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmepd.data.cases import Case
from fedmepd.data.findings import MOST_SHOWN
from fedmepd.errors import DataError, SettingsError
from fedmepd.seeds import derive_seed
from fedmepd.text_table import counted

ALL = "all"


@dataclass(frozen=True)
class FusionChoice:
    """What ``fedmepd data init --fusion`` asks for; without a share and a file, every patient that may be chosen.

    A patient may be chosen who has a label, and all modalities in every case with a label.

    Args:
        share: of these patients.
        file: lists the patients.
        listed: those of the file.
    """

    share: float | None = None
    file: Path | None = None
    listed: tuple[str, ...] = ()

    @classmethod
    def read(cls, which: str) -> FusionChoice:
        """Reads the option's value: ``all``, a share, or a text file with one patient per line.

        Raises:
            SettingsError: it is none of them, or the share is out of bounds.
            DataError: the file cannot be read, or names no patient.
        """
        if which == ALL:
            return cls()
        try:
            share = float(which)
        except ValueError:
            return cls._read_file(which)
        if not 0 < share <= 1:
            raise SettingsError(f"--fusion {which}: expected a share above 0 and at most 1")
        return cls(share)

    @classmethod
    def _read_file(cls, which: str) -> FusionChoice:
        file = Path(which)
        if not file.is_file():
            raise SettingsError(
                f"--fusion {which}: expected {ALL}, a share of the patients such as 0.5, or a text file with one "
                "patient per line"
            )
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read as a list of patients: {error}") from error
        listed = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if not listed:
            raise DataError(f"{file} names no patient: expected one patient per line")
        return cls(file=file, listed=listed)

    def among(self, cases: Sequence[Case], earlier: Mapping[str, bool], seed: int) -> set[str]:
        """Returns the patients for fusion training.

        ``all`` and a file say of every patient whose he or she is. A share leaves the patients of an earlier choice
        where they are, and deals the others, so that the share fits as well as it can.

        Args:
            cases: of the hospital.
            earlier: the patients that the data set had before, and whether they were for fusion training.
            seed: decides which of the patients make up a share.

        Raises:
            DataError: a patient of the file is unknown, has no label, or lacks a modality; or nobody has all.
        """
        if self.file is not None:
            self._require_known(cases)
            return set(self.listed)
        full = _labelled(cases) - set(_lacking(cases))
        if not full:
            raise DataError(
                f"no patient has a label and all of {', '.join(cases[0].task.modalities)}: fusion training needs such "
                "patients; without --fusion all cases are the site's own"
            )
        if self.share is None:
            return full
        if not any(earlier.values()):
            earlier = {}
        kept = {case.patient for case in cases if earlier.get(case.patient)}
        new = sorted(full - earlier.keys(), key=lambda patient: (derive_seed(seed, "fusion", patient), patient))
        room = max(1, round(self.share * len(full))) - len(kept)
        return kept | set(new[: max(0, room)])

    def _require_known(self, cases: Sequence[Case]) -> None:
        patients = {case.patient for case in cases}
        of_case = {case.name: case.patient for case in cases}
        lines = []
        for name in self.listed:
            if name not in patients:
                hint = f"it is a case of patient {of_case[name]}: name the patient" if name in of_case else "remove it"
                lines.append(f"patient {name} is not in the data set: {hint}")
        _refuse(lines, f" in {self.file}")


def require_full(cases: Sequence[Case], patients: Iterable[str]) -> None:
    """Does nothing if all the patients can be used for fusion training.

    Raises:
        DataError: one has no label, or a case with a label but without a modality; the message names patient and case.
    """
    labelled, lacking = _labelled(cases), _lacking(cases)
    lines = [
        lacking.get(patient) or f"patient {patient} has no label: add one, or take the patient out of the fusion cases"
        for patient in sorted(patients)
        if patient not in labelled or patient in lacking
    ]
    _refuse(lines, "")


def _labelled(cases: Sequence[Case]) -> set[str]:
    return {case.patient for case in cases if case.label is not None}


def _lacking(cases: Sequence[Case]) -> dict[str, str]:
    """The patients with a labelled case that lacks a modality, and what to do."""
    lines = {}
    for case in cases:
        missing = [name for name in case.task.modalities if name not in case.images]
        if case.label is not None and missing:
            lines[case.patient] = (
                f"patient {case.patient} has no {', '.join(missing)} in case {case.name}: add them, or take the "
                "patient out of the fusion cases with --fusion"
            )
    return lines


def _refuse(lines: list[str], where: str) -> None:
    if not lines:
        return
    count, shown = len(lines), lines[:MOST_SHOWN]
    more = [f"and {count - MOST_SHOWN} more"] if count > MOST_SHOWN else []
    head = f"{counted(count, 'patient')}{where} cannot be used for fusion training:"
    raise DataError(head, lines=[*shown, *more])
