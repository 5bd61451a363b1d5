"""What a participant has released so far, on disk: written before the noise is drawn, and never taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmepd.errors import CheckpointError, explain
from fedmepd.privacy.accountant import Release
from fedmepd.storage import has_file, locked, read_json, write_json

_HINT = ": restore it, for without it nobody knows how much privacy is left"
_PUBLIC = "the record of spent privacy cannot be used"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Entry(_Part):
    round: int = Field(ge=0)
    noise: float = Field(gt=0)
    rate: float = Field(gt=0, le=1)
    times: int = Field(ge=0)


class _Run(_Part):
    noise: float | None = Field(None, gt=0)
    vector_noise: float | None = Field(None, gt=0)
    entries: list[_Entry] = []


class _Content(_Part):
    runs: dict[str, _Run] = {}


class Ledger:
    """The releases of one run, in a file that holds those of all runs of a participant.

    A round that was broken off counts, since nobody knows what had left by then; repeated, it counts again.

    Args:
        path: the file.
        run: identifies the run in it.
    """

    def __init__(self, path: Path, run: str):
        self.path, self._run = Path(path), run

    def is_new(self) -> bool:
        """Whether nothing of the run is noted."""
        return self._run not in self._read().runs

    def noise(self) -> tuple[float | None, float | None]:
        """Returns the noise of the run's steps and of its class vectors; None where none has been chosen."""
        run = self._read().runs.get(self._run, _Run())
        return run.noise, run.vector_noise

    def choose(self, noise: float | None, vector_noise: float | None) -> None:
        """Notes the noise of the run."""
        self._change(lambda run, _: run.model_copy(update={"noise": noise, "vector_noise": vector_noise}))

    def releases(self) -> list[Release]:
        """Returns those of the run."""
        return _releases(self._read().runs.get(self._run, _Run()))

    def of_others(self) -> list[Release]:
        """Returns those of all other runs."""
        return self._others_in(self._read())

    def _others_in(self, content: _Content) -> list[Release]:
        return [one for name, run in content.runs.items() if name != self._run for one in _releases(run)]

    def add(
        self, round_number: int, releases: list[Release], allow: Callable[[list[Release], list[Release]], None]
    ) -> None:
        """Notes releases of a round; to be called before any of them is made.

        Args:
            round_number: the round.
            releases: of it.
            allow: is given the run's releases, these included, and those of all other runs, while no other run can add
                any: of two that are charged at the same moment, the second one sees the first. What it raises leaves
                the ledger as it is.

        Raises:
            FedMEPDError: the file cannot be written.
        """
        entries = [_Entry(round=round_number, **release.__dict__) for release in releases if release.times]

        def change(run: _Run, content: _Content) -> _Run:
            allow([*_releases(run), *releases], self._others_in(content))
            return run.model_copy(update={"entries": [*run.entries, *entries]})

        self._change(change)

    def _change(self, change: Callable[[_Run, _Content], _Run]) -> None:
        # Another job of the site may be writing.
        with locked(self.path.with_suffix(".lock"), taken=None):
            content = self._read()
            content.runs[self._run] = change(content.runs.get(self._run, _Run()), content)
            write_json(self.path, content.model_dump())

    def _read(self) -> _Content:
        return _read(self.path)


def releases_of_all(path: Path) -> list[list[Release]]:
    """Returns the releases of every run in a file; none where there is no file.

    Raises:
        CheckpointError: it cannot be read.
    """
    return [_releases(run) for run in _read(path).runs.values()]


def _read(path: Path) -> _Content:
    if not has_file(path, CheckpointError, _HINT):
        return _Content()
    found = read_json(path, "the record of spent privacy", CheckpointError, hint=_HINT, public=_PUBLIC)
    try:
        return _Content.model_validate(found)
    except ValidationError as error:
        raise CheckpointError(explain(error, str(path)) + _HINT, public=_PUBLIC) from error


def _releases(run: _Run) -> list[Release]:
    return [Release(entry.noise, entry.rate, entry.times) for entry in run.entries]
