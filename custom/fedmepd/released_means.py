"""Over whose cases means have left a site, in all runs of its kit.

Two means of the same model over sets of patients that differ in one tell that patient's score. A server could ask for
both, by two runs with the same weights and other shares of the data. So a site keeps in mind the patients behind every
mean that has left it, and keeps back a mean that would tell of a few together with any of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmepd.combined_means import tells_of_few
from fedmepd.errors import CheckpointError, explain
from fedmepd.storage import has_file, locked, read_json, write_json

FILE_NAME = "fedmepd_means.json"
# A hospital whose data grow has a few dozen sets; whoever asks for more than this may be taking them apart.
_MOST_SETS = 1000

_Patient = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    means: dict[str, list[list[_Patient]]] = {}


class ReleasedMeans:
    """Decides whether a mean may leave beside those that have left before.

    Args:
        file: that keeps the patients behind them, as hashes; None: in memory, for this process alone.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """

    def __init__(self, file: Path | None = None):
        self._file = file
        self._sets: dict[str, list[frozenset[str]]] = {}
        if file is not None:
            self._sets = self._read()

    def admit(self, behind: Mapping[str, Iterable[str]], fewest: int) -> bool:
        """Whether a mean may leave; if so, its patients are kept in mind, on disk before this returns.

        Args:
            behind: the patients that count, by what the mean is of; means of different things tell nothing together.
            fewest: patients of whom no combination of the mean with earlier ones may tell less.

        Raises:
            FedMEPDError: the file cannot be read or written.
        """
        asked = {kind: frozenset(map(_hash, patients)) for kind, patients in behind.items()}
        if fewest <= 1 or self._knows(asked):
            return True
        if self._file is None:
            return self._add(asked, fewest)
        # Several runs of a kit may ask at the same time.
        with locked(self._file.with_name(f".{self._file.name}.lock"), None):
            self._sets = self._read()
            if not self._add(asked, fewest):
                return False
            means = {name: [sorted(one) for one in of] for name, of in self._sets.items()}
            try:
                write_json(self._file, _Kept(means=means).model_dump(mode="json"))
            except BaseException:
                # What is not on disk has not left.
                self._sets = {}
                raise
        return True

    def _knows(self, asked: Mapping[str, frozenset[str]]) -> bool:
        return all(patients in self._sets.get(kind, ()) for kind, patients in asked.items())

    def _add(self, asked: Mapping[str, frozenset[str]], fewest: int) -> bool:
        for kind, patients in asked.items():
            known = self._sets.get(kind, [])
            if patients not in known and (len(known) >= _MOST_SETS or tells_of_few(patients, known, fewest)):
                return False
        for kind, patients in asked.items():
            there = self._sets.setdefault(kind, [])
            if patients not in there:
                there.append(patients)
        return True

    def _read(self) -> dict[str, list[frozenset[str]]]:
        hint = "; restore it from a backup: without it nobody knows which means have left this site"
        if not has_file(self._file, CheckpointError, hint):
            return {}
        content = read_json(
            self._file, "the patients behind the means that have left this site", CheckpointError, hint=hint
        )
        try:
            kept = _Kept.model_validate(content)
        except ValidationError as error:
            raise CheckpointError(f"{explain(error, str(self._file))}{hint}") from error
        return {kind: [frozenset(one) for one in of] for kind, of in kept.means.items()}


def _hash(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()[:32]
