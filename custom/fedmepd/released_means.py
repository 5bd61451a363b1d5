"""Over whose cases means have left a site, in all runs of its kit.

Two means of the same model over sets of cases that differ in one tell that case's score. A server could ask for both,
by two runs with the same weights and other shares of the data. So a site keeps in mind the cases behind every mean that
has left it, and the patients whose they are, and keeps back a mean that would tell of a few of them together with any
of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedmepd.combined_means import Verdict, tells_of_few
from fedmepd.errors import CheckpointError, explain
from fedmepd.storage import has_file, locked, read_json, write_json

FILE_NAME = "fedmepd_means.json"
# A hospital whose data grow has a few dozen sets; whoever asks for more than this may be taking them apart.
_MOST_SETS = 1000
# Answers that are kept for the next round, which asks about the same sets: validation and test, of each region.
_MOST_REMEMBERED = 100

_Hash = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    patients: dict[_Hash, _Hash] = {}
    means: dict[str, list[list[_Hash]]] = {}

    @model_validator(mode="after")
    def _every_case_has_a_patient(self) -> _Kept:
        if any(case not in self.patients for of in self.means.values() for one in of for case in one):
            raise ValueError("patients: expected the patient of every case in means")
        return self


@dataclass
class _Known:
    """The patient of every case, and by what a mean is of, the cases behind each."""

    patients: dict[str, str] = field(default_factory=dict)
    sets: dict[str, list[frozenset[str]]] = field(default_factory=dict)

    def has(self, asked: Mapping[str, Mapping[str, str]]) -> bool:
        return all(frozenset(cases) in self.sets.get(kind, ()) for kind, cases in asked.items())

    def verdict(self, asked: Mapping[str, Mapping[str, str]], fewest: int) -> Verdict | None:
        for kind, cases in asked.items():
            known = self.sets.get(kind, [])
            if frozenset(cases) in known:
                continue
            if len(known) >= _MOST_SETS:
                return "unsure"
            if verdict := tells_of_few(cases, known, fewest, self.patients | cases):
                return verdict
        return None

    def question(self, asked: Mapping[str, Mapping[str, str]], fewest: int) -> Hashable:
        """Returns what a verdict depends on, as long as this is what one process knows: sets are added, never taken."""
        return fewest, *((kind, frozenset(of.items()), len(self.sets.get(kind, ()))) for kind, of in asked.items())

    def add(self, asked: Mapping[str, Mapping[str, str]]) -> None:
        for kind, cases in asked.items():
            self.patients |= cases
            there = self.sets.setdefault(kind, [])
            if frozenset(cases) not in there:
                there.append(frozenset(cases))


class ReleasedMeans:
    """Decides whether a mean may leave beside those that have left before.

    Args:
        file: that keeps the cases and patients behind them, as hashes; None: in memory, for this process alone.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """

    def __init__(self, file: Path | None = None):
        self._file = file
        self._known = _Known() if file is None else self._read(file)
        # To be unsure takes seconds.
        self._refused: dict[Hashable, Verdict] = {}

    def admit(self, behind: Mapping[str, Mapping[str, str]], fewest: int) -> Verdict | None:
        """Decides whether a mean may leave; if so, its cases are kept in mind, on disk before this returns.

        Args:
            behind: the cases that count, and the patient of each, by what the mean is of; means of different things
                tell nothing together.
            fewest: patients of whom no combination of the mean with earlier ones may tell less. With 1 the mean may
                leave, and counts for later ones.

        Returns:
            None: it may leave; or why not.

        Raises:
            FedMEPDError: the file cannot be read or written.
        """
        asked = {
            kind: {_hash(case): _hash(patient) for case, patient in cases.items()} for kind, cases in behind.items()
        }
        if self._known.has(asked):
            return None
        if self._file is None:
            return self._add(asked, fewest)
        # Several runs of a kit may ask at the same time.
        with locked(self._file.with_name(f".{self._file.name}.lock"), None):
            self._known = self._read(self._file)
            if verdict := self._add(asked, fewest):
                return verdict
            means = {name: [sorted(one) for one in of] for name, of in self._known.sets.items()}
            try:
                kept = _Kept(patients=self._known.patients, means=means)
                write_json(self._file, kept.model_dump(mode="json"))
            except BaseException:
                # What is not on disk has not left.
                self._known = _Known()
                raise
        return None

    def _add(self, asked: Mapping[str, Mapping[str, str]], fewest: int) -> Verdict | None:
        question = self._known.question(asked, fewest)
        if question in self._refused:
            return self._refused[question]
        verdict = self._known.verdict(asked, fewest) if fewest > 1 else None
        if verdict is None:
            self._known.add(asked)
        else:
            if len(self._refused) == _MOST_REMEMBERED:
                del self._refused[next(iter(self._refused))]
            self._refused[question] = verdict
        return verdict

    @staticmethod
    def _read(file: Path) -> _Known:
        hint = "; restore it from a backup: without it nobody knows which means have left this site"
        if not has_file(file, CheckpointError, hint):
            return _Known()
        content = read_json(file, "the cases behind the means that have left this site", CheckpointError, hint=hint)
        try:
            kept = _Kept.model_validate(content)
        except ValidationError as error:
            raise CheckpointError(f"{explain(error, str(file))}{hint}") from error
        return _Known(kept.patients, {kind: [frozenset(one) for one in of] for kind, of in kept.means.items()})


def _hash(name: str) -> str:
    # A file's name may hold bytes that are no text, which Python keeps as surrogates.
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]
